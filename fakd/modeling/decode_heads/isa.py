"""Interlaced sparse self-attention head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from torch import Tensor, nn

from ...registry import DECODE_HEAD_REGISTRY
from .base import ConvBNReLU, DecodeHead

_TILE = 8  # its side; maps are padded to whole tiles, and the zeros take part in the attention


class SelfAttention(nn.Module):
    """Self-attention of the pixels of a small map, without a residual.

    Args:
        channels: of the map.
        key_channels: of queries and keys.
    """

    def __init__(self, channels: int, key_channels: int) -> None:
        super().__init__()
        self.query_project = self._project(channels, key_channels)
        self.key_project = self._project(channels, key_channels)
        self.value_project = nn.Conv2d(channels, channels, 1)
        self.output_project = ConvBNReLU(channels, channels)
        self.scale = key_channels**-0.5

    @staticmethod
    def _project(channels: int, key_channels: int) -> nn.Sequential:
        return nn.Sequential(ConvBNReLU(channels, key_channels), ConvBNReLU(key_channels, key_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        query = self.query_project(x).flatten(2).transpose(1, 2)  # (B, pixels, key_channels)
        key = self.key_project(x).flatten(2)
        value = self.value_project(x).flatten(2).transpose(1, 2)
        attention = (query @ key * self.scale).softmax(dim=-1)
        return self.output_project((attention @ value).transpose(1, 2).reshape(x.shape))


@DECODE_HEAD_REGISTRY.register()
class ISAHead(DecodeHead):
    """Attention across tiles and then within them (Huang et al. 2019), in mmsegmentation's form.

    Args:
        in_feature: name of the map.
        isa_channels: of queries and keys.
        **kwargs: see :class:`DecodeHead`.
    """

    def __init__(
        self,
        in_channels: Mapping[str, int],
        channels: int,
        num_classes: int,
        in_feature: str = "res5",
        isa_channels: int = 256,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, channels, num_classes, **kwargs)
        self.in_feature = in_feature
        self.in_conv = ConvBNReLU(in_channels[in_feature], channels, 3)
        self.global_relation = SelfAttention(channels, isa_channels)
        self.local_relation = SelfAttention(channels, isa_channels)
        self.out_conv = ConvBNReLU(2 * channels, channels)

    @classmethod
    def options(cls, node: CfgNode) -> dict[str, Any]:
        return {"isa_channels": node.ISA_CHANNELS}

    def decode(self, stages: Mapping[str, Tensor]) -> Tensor:
        x = self.in_conv(stages[self.in_feature])
        return self.out_conv(torch.cat([self._attend(x), x], dim=1))

    def _attend(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        t = _TILE
        extra_h, extra_w = -h % t, -w % t
        top, left = extra_h // 2, extra_w // 2
        x = F.pad(x, (left, extra_w - left, top, extra_h - top))
        rows, columns = x.shape[2] // t, x.shape[3] // t
        # One batch entry per position within a tile, each a map of all tiles.
        x = x.view(n, c, rows, t, columns, t).permute(0, 3, 5, 1, 2, 4).reshape(-1, c, rows, columns)
        x = self.global_relation(x)
        # One batch entry per tile.
        x = x.view(n, t, t, c, rows, columns).permute(0, 4, 5, 3, 1, 2).reshape(-1, c, t, t)
        x = self.local_relation(x)
        x = x.view(n, rows, columns, c, t, t).permute(0, 3, 1, 4, 2, 5).reshape(n, c, rows * t, columns * t)
        return x[:, :, top : top + h, left : left + w]
