"""Decode heads: from the backbone's maps to the classifier's input and the scores."""

from .base import DecodeHead
from .fcn import FCNHead
from .psp import PSPHead

__all__ = ["DecodeHead", "FCNHead", "PSPHead"]
