"""Base class of the decode heads, and the layers they share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from detectron2.config import CfgNode
from torch import Tensor, nn


class ConvBNReLU(nn.Sequential):
    """Convolution without bias, batch norm and ReLU, with sub-modules named ``conv`` and ``bn``."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, dilation: int = 1, groups: int = 1
    ) -> None:
        conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            padding=dilation * (kernel_size // 2),
            dilation=dilation,
            groups=groups,
            bias=False,
        )
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        super().__init__(
            OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels), activate=nn.ReLU(inplace=True))
        )


class SeparableConv(nn.Sequential):
    """A 3x3 convolution per channel and a 1x1 across them, each with batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1) -> None:
        depthwise = ConvBNReLU(in_channels, in_channels, 3, dilation, groups=in_channels)
        super().__init__(
            OrderedDict(depthwise_conv=depthwise, pointwise_conv=ConvBNReLU(in_channels, out_channels))
        )


class DecodeHead(nn.Module):
    """Base of the decode heads.

    A subclass builds its layers and implements :meth:`decode`; dropout and the 1x1 classifier
    ``conv_seg`` are here, so that the scores are linear in what :meth:`forward` returns beside them.

    Args:
        in_channels: channels of the backbone's maps by name.
        channels: A, channels in front of the classifier.
        num_classes: K.
        dropout: probability of dropping a channel of the classifier's input.
        align_corners: how maps are resized inside the head.
    """

    def __init__(
        self,
        in_channels: Mapping[str, int],
        channels: int,
        num_classes: int,
        dropout: float = 0.1,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.num_classes = num_classes
        self.align_corners = align_corners
        self.dropout: nn.Module = nn.Dropout2d(dropout) if dropout > 0 else nn.Identity()
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        nn.init.zeros_(self.conv_seg.bias)  # type: ignore[arg-type]

    @classmethod
    def options(cls, node: CfgNode) -> dict[str, Any]:
        """Arguments of this head alone, from the config node ``MODEL.SEM_SEG_HEAD``."""
        return {}

    def decode(self, stages: Mapping[str, Tensor]) -> Tensor:
        """(N, A, h, w) from the backbone's maps."""
        raise NotImplementedError

    def forward(self, stages: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The classifier's input (N, A, h, w) and its scores (N, K, h, w)."""
        feature = self.dropout(self.decode(stages))
        return feature, self.conv_seg(feature)

    def resize(self, x: Tensor, like: Tensor) -> Tensor:
        """Bilinearly resize a map to the size of another."""
        return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=self.align_corners)
