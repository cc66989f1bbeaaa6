"""Plain convolutional head, mostly used as the auxiliary one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ...registry import DECODE_HEAD_REGISTRY
from .base import ConvBNReLU, DecodeHead


@DECODE_HEAD_REGISTRY.register()
class FCNHead(DecodeHead):
    """A 3x3 convolution on one map (Long et al. 2015); mmsegmentation's auxiliary head.

    Args:
        in_feature: name of the map.
        **kwargs: see :class:`DecodeHead`.
    """

    def __init__(
        self,
        in_channels: Mapping[str, int],
        channels: int,
        num_classes: int,
        in_feature: str = "res4",
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, channels, num_classes, **kwargs)
        self.in_feature = in_feature
        self.convs = nn.Sequential(ConvBNReLU(in_channels[in_feature], channels, 3))

    def decode(self, stages: Mapping[str, Tensor]) -> Tensor:
        return self.convs(stages[self.in_feature])
