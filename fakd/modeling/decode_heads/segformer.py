"""SegFormer's heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...registry import DECODE_HEAD_REGISTRY
from .base import ConvBNReLU, DecodeHead


@DECODE_HEAD_REGISTRY.register()
class SegformerHead(DecodeHead):
    """Projects all maps to one width, resizes them to the finest and fuses them (Xie et al. 2021).

    This is mmsegmentation's form: batch norm and ReLU after every map's convolution.
    """

    def __init__(
        self, in_channels: Mapping[str, int], channels: int, num_classes: int, **kwargs: Any
    ) -> None:
        super().__init__(in_channels, channels, num_classes, **kwargs)
        self.convs = nn.ModuleList(self.branch(width, channels) for width in in_channels.values())
        self.fusion_conv = ConvBNReLU(len(in_channels) * channels, channels)

    @staticmethod
    def branch(in_channels: int, channels: int) -> nn.Module:
        """The projection of one map."""
        return ConvBNReLU(in_channels, channels)

    def decode(self, stages: Mapping[str, Tensor]) -> Tensor:
        finest, *others = (conv(x) for conv, x in zip(self.convs, stages.values(), strict=True))
        return self.fusion_conv(torch.cat([finest, *(self.resize(x, like=finest) for x in others)], dim=1))


@DECODE_HEAD_REGISTRY.register()
class LinearSegformerHead(SegformerHead):
    """The head of SegFormer's authors, of Hugging Face and of CIRKD: every map's projection is linear.

    Maps are resized with ``align_corners`` off; the head's option is for the scores alone, as in CIRKD.
    """

    @staticmethod
    def branch(in_channels: int, channels: int) -> nn.Module:
        """The projection of one map."""
        return nn.Conv2d(in_channels, channels, 1)

    def resize(self, x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
