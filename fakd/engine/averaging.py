"""An exponential moving average of the weights, which is what is tested and kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from detectron2.engine import HookBase
from torch import Tensor, nn


class AveragedWeights(HookBase):
    """Averages a network's weights and buffers over the steps (Polyak and Juditsky 1992, exponentially).

        average <- d average + (1 - d) weights,    d = min(decay, (1 + t) / (10 + t))

    after step t = 0, 1, ...: early averages forget the first weights sooner, as TensorFlow's do.

    Args:
        network: whose ``state_dict`` is averaged; of a distiller that is the student's.
        decay: in (0, 1).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network, self._decay = network, decay
        self._average: dict[str, Tensor] = {}

    def before_train(self) -> None:
        if not self._average:  # else the run is resumed
            self._average = {name: x.clone() for name, x in self._live().items()}

    def _live(self) -> dict[str, Tensor]:
        # What is counted, as batch norm counts its batches, has no average.
        return {name: x for name, x in self._network.state_dict().items() if x.is_floating_point()}

    @torch.no_grad()
    def after_step(self) -> None:
        decay = min(self._decay, (1 + self.trainer.iter) / (10 + self.trainer.iter))
        live = self._live()
        torch._foreach_lerp_(list(self._average.values()), [live[name] for name in self._average], 1 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the network has the averages, afterwards its own weights again."""
        live = self._live()
        own = {name: x.clone() for name, x in live.items()}
        _copy(self._average, live)
        try:
            yield
        finally:
            _copy(own, live)

    def state_dict(self) -> dict[str, Any]:
        return dict(self._average)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self._average = {name: state[name].to(x) for name, x in self._live().items()}


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, x in source.items():
        target[name].copy_(x)
