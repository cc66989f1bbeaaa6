"""The frozen network that a student learns from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..structures import SegOutput
from .segmentor import Segmentor


class FrozenTeacher(nn.Module):
    """Runs the teacher on a student's batch without gradients, always in eval mode.

    Args:
        network: the teacher; its parameters require no gradient from now on.
        input_format: "RGB" or "BGR", the channel order of the images it is given.
    """

    def __init__(self, network: Segmentor, input_format: str) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.input_format = input_format
        self.eval()

    @torch.no_grad()
    def forward(self, images: Tensor, batched_inputs: list[dict[str, Any]]) -> SegOutput:
        """The teacher's maps of a batch.

        Args:
            images: (N, 3, H, W) of 0 to 255, in the order of ``input_format``.
            batched_inputs: the dicts that ``images`` were stacked from. Unused here; a replacement of
                this module may identify a batch by them.
        """
        same_order = self.network.input_format == self.input_format
        return self.network.encode(images if same_order else images.flip(1))

    def train(self, mode: bool = True) -> FrozenTeacher:
        """Stays in eval mode."""
        return super().train(False)
