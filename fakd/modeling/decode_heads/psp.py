"""Pyramid pooling head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...registry import DECODE_HEAD_REGISTRY
from .base import ConvBNReLU, DecodeHead

_POOLED = (1, 2, 3, 6)  # sides of the pooled maps


@DECODE_HEAD_REGISTRY.register()
class PSPHead(DecodeHead):
    """The map and its averages at several scales (Zhao et al. 2017), in mmsegmentation's form.

    Args:
        in_feature: name of the map.
        pool_channels: channels of each pooled map; ``channels`` if not given.
        **kwargs: see :class:`DecodeHead`.
    """

    def __init__(
        self,
        in_channels: Mapping[str, int],
        channels: int,
        num_classes: int,
        in_feature: str = "res5",
        pool_channels: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, channels, num_classes, **kwargs)
        self.in_feature = in_feature
        width = in_channels[in_feature]
        pool_channels = pool_channels or channels
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), ConvBNReLU(width, pool_channels)) for scale in _POOLED
        )
        self.bottleneck = ConvBNReLU(width + len(_POOLED) * pool_channels, channels, 3)

    def decode(self, stages: Mapping[str, Tensor]) -> Tensor:
        x = stages[self.in_feature]
        pooled = [self.resize(module(x), like=x) for module in self.psp_modules]
        return self.bottleneck(torch.cat([x, *pooled], dim=1))
