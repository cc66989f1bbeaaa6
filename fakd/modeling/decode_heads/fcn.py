"""Plain convolutional head, mostly used as the auxiliary one."""

from __future__ import annotations

from torch import nn

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
        self, in_channels, channels, num_classes, in_feature="res4", num_convs=1, kernel_size=3, **kwargs
    ) -> None:
        super().__init__(in_channels, channels, num_classes, **kwargs)
        self.in_feature = in_feature
        widths = [in_channels[in_feature]] + [channels] * num_convs
        self.convs = nn.Sequential(
            *(ConvBNReLU(a, b, kernel_size) for a, b in zip(widths[:-1], widths[1:], strict=True))
        )

    def decode(self, stages):
        return self.convs(stages[self.in_feature])
