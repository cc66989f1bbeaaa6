"""Plain convolutional head, mostly used as the auxiliary one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ...registry import DECODE_HEAD_REGISTRY
from .base import ConvBNReLU, DecodeHead


@DECODE_HEAD_REGISTRY.register()
class FCNHead(DecodeHead):
    """Convolutions on one map (Long et al. 2015); mmsegmentation's auxiliary head.

    Args:
        in_feature: name of the map.
        num_convs: number of convolutions in front of the classifier.
        kernel_size: their size.
        **kwargs: see :class:`DecodeHead`.
    """

    def __init__(
        self,
        in_channels: Mapping[str, int],
        channels: int,
        num_classes: int,
        in_feature: str = "res4",
        num_convs: int = 1,
        kernel_size: int = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, channels, num_classes, **kwargs)
        self.in_feature = in_feature
        widths = [in_channels[in_feature]] + [channels] * num_convs
        self.convs = nn.Sequential(
            *(ConvBNReLU(a, b, kernel_size) for a, b in zip(widths[:-1], widths[1:], strict=True))
        )

    def decode(self, stages: Mapping[str, Tensor]) -> Tensor:
        return self.convs(stages[self.in_feature])
