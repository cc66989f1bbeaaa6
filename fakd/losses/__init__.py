"""Distillation losses, one method per file. Every module in this folder is imported, and so registered."""

from importlib import import_module
from pkgutil import iter_modules

from ._taps import tapped_maps
from .base import DistillLoss, option

for _module in iter_modules(__path__):
    # Names with an underscore in front are not methods: `python -m fakd.losses` is one.
    if not _module.name.startswith("_"):
        import_module(f"{__name__}.{_module.name}")

__all__ = ["DistillLoss", "option", "tapped_maps"]
