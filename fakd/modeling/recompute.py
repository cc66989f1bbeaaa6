"""Activation checkpointing: a backbone's blocks are computed again in the backward pass."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recompute_blocks(network: nn.Module) -> int:
    """Keeps of every block only its input for the backward pass (Chen et al. 2016); the number of blocks.

    Blocks are the parts of the outermost sequences and lists whose parts have parts of their own: a ResNet's
    residual blocks, an EfficientNet's stages. Gradients, weights and names stay as they are. In evaluation
    and without gradients nothing is computed twice.
    """
    count = 0
    for child in network.children():
        parts = list(child.children())
        in_a_row = isinstance(child, nn.Sequential | nn.ModuleList)
        if in_a_row and parts and all(any(True for _ in part.children()) for part in parts):
            for part in parts:
                part.__class__ = _recomputing(type(part))  # type: ignore[arg-type,assignment]
            count += len(parts)
        else:
            count += recompute_blocks(child)
    return count


@functools.cache
def _recomputing(kind: type[nn.Module]) -> type[nn.Module]:
    """A block's class whose forward pass in training is checkpointed."""

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not self.training:
            return kind.forward(self, *args, **kwargs)

        def contexts() -> tuple[Any, Any]:
            return contextlib.nullcontext(), _running_statistics_kept(self)

        return checkpoint(kind.forward, self, *args, use_reentrant=False, context_fn=contexts, **kwargs)

    return type(kind.__name__, (kind,), {"forward": forward})


@contextlib.contextmanager
def _running_statistics_kept(block: nn.Module) -> Iterator[None]:
    """Batch norms and ranges of int8 compute as in training, but count the batch no second time."""
    parts = list(block.modules())
    rates = [
        (x, name, getattr(x, name)) for x in parts for name in ("momentum", "renewal") if hasattr(x, name)
    ]
    counts = [x.num_batches_tracked for x in parts if isinstance(x, _BatchNorm)]
    before = [(count, count.clone()) for count in counts if count is not None]
    for part, name, _ in rates:
        setattr(part, name, 0.0)
    try:
        yield
    finally:
        for part, name, rate in rates:
            setattr(part, name, rate)
        for count, kept in before:
            count.copy_(kept)
