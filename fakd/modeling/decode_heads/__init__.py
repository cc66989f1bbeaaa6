"""Decode heads: from the backbone's maps to the classifier's input and the scores."""

from .aspp import ASPPHead, DepthwiseSeparableASPPHead
from .base import DecodeHead
from .cirkd import CIRKDDeepLabHead, CIRKDPSPHead
from .fcn import FCNHead
from .hrnet import HRNetHead
from .isa import ISAHead
from .linear import LinearHead
from .psp import PSPHead
from .segformer import LinearSegformerHead, SegformerHead

__all__ = [
    "ASPPHead",
    "CIRKDDeepLabHead",
    "CIRKDPSPHead",
    "DecodeHead",
    "DepthwiseSeparableASPPHead",
    "FCNHead",
    "HRNetHead",
    "ISAHead",
    "LinearHead",
    "LinearSegformerHead",
    "PSPHead",
    "SegformerHead",
]
