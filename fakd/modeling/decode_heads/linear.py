"""A linear classifier on a frozen backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ...registry import DECODE_HEAD_REGISTRY
from .base import DecodeHead


@DECODE_HEAD_REGISTRY.register()
class LinearHead(DecodeHead):
    """Batch norm and a linear classifier on the backbone's last map, as DINOv2 is probed (Oquab et al. 2023).

    What a backbone knows already, without a decoder that learns the rest: with ``MODEL.BACKBONE.FREEZE`` a
    teacher that costs two matrices to train. They are one linear map of rank ``channels``, with the feature
    in between.

    Args:
        in_channels: channels of the backbone's maps by name, fine to coarse.
        channels, num_classes, **kwargs: see :class:`DecodeHead`.
    """

    def __init__(
        self, in_channels: Mapping[str, int], channels: int, num_classes: int, **kwargs: Any
    ) -> None:
        super().__init__(in_channels, channels, num_classes, **kwargs)
        self.in_feature, width = list(in_channels.items())[-1]
        self.norm = nn.BatchNorm2d(width)
        self.linear = nn.Conv2d(width, channels, 1, bias=False)

    def decode(self, stages: Mapping[str, Tensor]) -> Tensor:
        return self.linear(self.norm(stages[self.in_feature]))
