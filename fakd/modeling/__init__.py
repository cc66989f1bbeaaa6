"""Networks: backbones, decode heads, the segmentor and the distiller, in detectron2's registries."""

from .backbones import TimmBackbone
from .decode_heads import DecodeHead, FCNHead, PSPHead
from .distiller import Distiller
from .segmentor import Segmentor

__all__ = ["DecodeHead", "Distiller", "FCNHead", "PSPHead", "Segmentor", "TimmBackbone"]
