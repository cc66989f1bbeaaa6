"""Knowledge distillation for semantic segmentation on detectron2.

The first use of a name below registers networks in detectron2's registries and datasets in its catalogs.
``import fakd`` alone imports nothing: PyTorch and detectron2 take seconds, and ``fakd.losses`` may be used in
a project that has no detectron2.
"""

import warnings
from importlib import import_module
from typing import Any

__version__ = "0.1.0"
_HOMES = {
    "Predictor": "predict",
    "Trainer": "engine",
    "add_fakd_config": "config",
    "distill": "engine",
    "load_config": "config",
    "run": "engine",
}
_PACKAGES = ("data", "losses", "modeling")
__all__ = [*_HOMES, *_PACKAGES]

# detectron2 scripts functions while it is imported, which newer torch warns of at length.
warnings.filterwarnings("ignore", "`torch.jit.script", FutureWarning, append=True)


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    for registering in ("data", "modeling"):
        import_module(f"{__name__}.{registering}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
