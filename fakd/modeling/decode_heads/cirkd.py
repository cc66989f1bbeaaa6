"""Heads of CIRKD's networks, which differ from the published ones of the same names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from ...registry import DECODE_HEAD_REGISTRY
from .aspp import ASPPHead
from .base import ConvBNReLU, DecodeHead
from .psp import PSPHead


@DECODE_HEAD_REGISTRY.register()
class CIRKDDeepLabHead(DecodeHead):
    """CIRKD's DeepLabV3: the branches are fused by a 1x1 convolution, and a 3x3 one follows.

    Use it with ``align_corners``. In front of the classifier dropout zeroes whole channels, as in every
    head here; CIRKD's zeroes single values, which differs in training alone.

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
        self.aspp_modules = nn.ModuleList(ASPPHead.branch(width, channels, d) for d in dilations)
        self.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvBNReLU(width, channels))
        self.project = ConvBNReLU((len(dilations) + 1) * channels, channels)
        self.project_dropout = nn.Dropout(0.5)  # of single values
        self.bottleneck = ConvBNReLU(channels, channels, 3)

    @classmethod
    def options(cls, node: CfgNode) -> dict[str, Any]:
        return {"dilations": tuple(node.DILATIONS)}

    def decode(self, stages: Mapping[str, Tensor]) -> Tensor:
        x = stages[self.in_feature]
        branches = [branch(x) for branch in self.aspp_modules]
        joined = self.project(torch.cat([*branches, self.resize(self.image_pool(x), like=x)], dim=1))
        return self.bottleneck(self.project_dropout(joined))


@DECODE_HEAD_REGISTRY.register()
class CIRKDPSPHead(PSPHead):
    """CIRKD's PSPNet: pooled maps of a quarter of the backbone's channels. Use it with ``align_corners``."""

    def __init__(
        self,
        in_channels: Mapping[str, int],
        channels: int,
        num_classes: int,
        in_feature: str = "res5",
        **kwargs: Any,
    ) -> None:
        pooled = in_channels[in_feature] // 4
        super().__init__(
            in_channels, channels, num_classes, in_feature=in_feature, pool_channels=pooled, **kwargs
        )
