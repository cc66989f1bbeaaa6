"""HRNet's head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...registry import DECODE_HEAD_REGISTRY
from .base import ConvBNReLU, DecodeHead


@DECODE_HEAD_REGISTRY.register()
class HRNetHead(DecodeHead):
    """One 1x1 convolution on all maps, resized to the finest and concatenated (Wang et al. 2019), HRNetV2.

    The published networks have as many channels here as all maps together, and no dropout.
    """

    def __init__(
        self, in_channels: Mapping[str, int], channels: int, num_classes: int, **kwargs: Any
    ) -> None:
        super().__init__(in_channels, channels, num_classes, **kwargs)
        self.convs = nn.Sequential(ConvBNReLU(sum(in_channels.values()), channels))

    def decode(self, stages: Mapping[str, Tensor]) -> Tensor:
        finest, *others = stages.values()
        return self.convs(torch.cat([finest, *(self.resize(x, like=finest) for x in others)], dim=1))
