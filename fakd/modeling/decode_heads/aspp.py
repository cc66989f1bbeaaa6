"""DeepLabV3's and DeepLabV3+'s heads, in mmsegmentation's shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from ...registry import DECODE_HEAD_REGISTRY
from .base import ConvBNReLU, DecodeHead, SeparableConv


@DECODE_HEAD_REGISTRY.register()
class ASPPHead(DecodeHead):
    """Parallel dilated convolutions and global average pooling (Chen et al. 2017), DeepLabV3.

    Args:
        in_feature: name of the map.
        dilations: of the branches; 1 is a 1x1 convolution.
        **kwargs: see :class:`DecodeHead`.
    """

    def __init__(
        self,
        in_channels: Mapping[str, int],
        channels: int,
        num_classes: int,
        in_feature: str = "res5",
        dilations: Sequence[int] = (1, 12, 24, 36),
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, channels, num_classes, **kwargs)
        self.in_feature = in_feature
        width = in_channels[in_feature]
        self.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvBNReLU(width, channels))
        self.aspp_modules = nn.ModuleList(self.branch(width, channels, dilation) for dilation in dilations)
        self.bottleneck = ConvBNReLU((len(dilations) + 1) * channels, channels, 3)

    @classmethod
    def options(cls, node: CfgNode) -> dict[str, Any]:
        return {"dilations": tuple(node.DILATIONS)}

    @staticmethod
    def branch(in_channels: int, channels: int, dilation: int) -> nn.Module:
        """One of the parallel convolutions."""
        return ConvBNReLU(in_channels, channels, 1 if dilation == 1 else 3, dilation)

    def decode(self, stages: Mapping[str, Tensor]) -> Tensor:
        x = stages[self.in_feature]
        pooled = self.resize(self.image_pool(x), like=x)
        return self.bottleneck(torch.cat([pooled, *(branch(x) for branch in self.aspp_modules)], dim=1))


@DECODE_HEAD_REGISTRY.register()
class DepthwiseSeparableASPPHead(ASPPHead):
    """ASPP of separable convolutions and a decoder on the finest map (Chen et al. 2018), DeepLabV3+.

    Args:
        c1_channels: what the finest map is reduced to.
        **kwargs: see :class:`ASPPHead`.
    """

    def __init__(
        self,
        in_channels: Mapping[str, int],
        channels: int,
        num_classes: int,
        c1_channels: int = 48,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, channels, num_classes, **kwargs)
        self.c1_bottleneck = ConvBNReLU(in_channels["res2"], c1_channels)
        self.sep_bottleneck = nn.Sequential(
            SeparableConv(channels + c1_channels, channels), SeparableConv(channels, channels)
        )

    @classmethod
    def options(cls, node: CfgNode) -> dict[str, Any]:
        return {**super().options(node), "c1_channels": node.C1_CHANNELS}

    @staticmethod
    def branch(in_channels: int, channels: int, dilation: int) -> nn.Module:
        """One of the parallel convolutions."""
        if dilation == 1:
            return ConvBNReLU(in_channels, channels)
        return SeparableConv(in_channels, channels, dilation)

    def decode(self, stages: Mapping[str, Tensor]) -> Tensor:
        c1 = self.c1_bottleneck(stages["res2"])
        coarse = self.resize(super().decode(stages), like=c1)
        return self.sep_bottleneck(torch.cat([coarse, c1], dim=1))
