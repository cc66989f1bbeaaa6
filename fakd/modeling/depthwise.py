"""Depthwise convolutions under mixed precision on a CPU."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from ..functional.precision import autocast


def keep_depthwise_in_float32(network: nn.Module) -> int:
    """Lets every depthwise convolution compute in float32 under autocast on a CPU; the number of them.

    There bfloat16 makes them several times slower, backward above all, while other convolutions gain half of
    their time. Weights, names and what happens elsewhere stay as they are.
    """
    found = [m for m in network.modules() if isinstance(m, nn.Conv2d) and 1 < m.groups == m.in_channels]
    for conv in found:
        conv.__class__ = _in_float32(type(conv))  # type: ignore[arg-type]
    return len(found)


@functools.cache
def _in_float32(kind: type[nn.Conv2d]) -> type[nn.Conv2d]:
    """A convolution's class (timm has others than torch) whose forward leaves autocast."""
    if getattr(kind, "in_float32", False):
        return kind

    def forward(self: nn.Conv2d, x: Tensor) -> Any:
        if not torch.is_autocast_enabled("cpu"):
            return kind.forward(self, x)
        with autocast(x.device, None):
            return kind.forward(self, x.float())

    return type(kind.__name__, (kind,), {"forward": forward, "in_float32": True})
