"""The frozen network that a student learns from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..functional.precision import autocast
from ..structures import SegOutput
from .fast_teacher import half_of, in_form
from .segmentor import Segmentor


class FrozenTeacher(nn.Module):
    """Runs the teacher on a student's batch without gradients, always in eval mode.

    Args:
        network: the teacher; its parameters require no gradient from now on.
        input_format: "RGB" or "BGR", the channel order of the images it is given.
        scale: factor of the images' size; the losses bring the smaller maps to the student's grid.
    """

    def __init__(self, network: Segmentor, input_format: str, scale: float = 1.0) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.input_format = input_format
        self.scale = scale
        self.form: tuple[str, ...] = ()
        self.eval()

    def take_form(self, form: Sequence[str]) -> None:
        """Compute in a form of :data:`fakd.modeling.fast_teacher.FORMS` from now on."""
        self.network, self.form = in_form(self.network, form), tuple(form)

    def forward(self, images: Tensor, batched_inputs: list[dict[str, Any]]) -> SegOutput:
        """The teacher's maps of a batch.

        Args:
            images: (N, C, H, W) of 0 to 255, in the order of ``input_format``.
            batched_inputs: the dicts that ``images`` were stacked from. Unused here; a replacement of
                this module may identify a batch by them.
        """
        return self.encode(images)

    # Not inference mode: its tensors may not be saved for a backward pass, and losses save them.
    @torch.no_grad()
    def encode(self, images: Tensor) -> SegOutput:
        """The teacher's maps, in the precision of its form, of images as :meth:`forward` takes them.

        Raises:
            ValueError: at the teacher's scale the images have no pixel.
        """
        if self.network.input_format != self.input_format:
            images = images.flip(1)
        if self.scale != 1:
            height, width = images.shape[-2:]
            if min(height, width) * self.scale < 1:
                least = math.ceil(1000 / min(height, width)) / 1000
                raise ValueError(
                    f"KD.TEACHER.SCALE is {self.scale}, which leaves nothing of images of {height}x{width}: "
                    f"choose at least {least}, or larger images (INPUT.CROP.SIZE)."
                )
            images = F.interpolate(
                images, scale_factor=self.scale, mode="bilinear", antialias=True, recompute_scale_factor=True
            )
        images, half = self.network.normalize(images), half_of(self.form)
        if "channels_last" in self.form:
            images = images.contiguous(memory_format=torch.channels_last)
        if half is None:
            return self.network.encode_normalized(images)
        with autocast(images.device, None):
            return self.network.encode_normalized(images.to(half))

    def train(self, mode: bool = True) -> FrozenTeacher:
        """Stays in eval mode."""
        return super().train(False)
