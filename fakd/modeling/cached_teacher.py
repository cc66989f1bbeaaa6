"""A teacher that is read from files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..losses import DistillLoss
from ..losses._usage import teacher_maps
from ..structures import SegOutput, SegSpec
from ..view_cache import REMEDY, ViewCache


class CachedTeacher(nn.Module):
    """What a teacher said of the views that the loader gives, in place of the teacher.

    Maps that are not in the cache are tensors without values, on the meta device, whose reading fails.

    Args:
        cache: with every view of the training.
    """

    def __init__(self, cache: ViewCache) -> None:
        super().__init__()
        self.cache = cache

    @property
    def spec(self) -> SegSpec:
        """Of the teacher that was cached."""
        return self.cache.info.spec

    def check(self, losses: Iterable[DistillLoss], student: SegSpec) -> None:
        """Raise ValueError if a loss reads a map that the cache lacks."""
        lacking = teacher_maps(losses, student, self.spec) - set(self.cache.info.maps)
        if lacking:
            raise ValueError(
                f"KD.TEACHER.CACHE '{self.cache.folder}' holds {', '.join(self.cache.info.maps)}, but "
                f"KD.LOSSES read {', '.join(sorted(lacking))} of the teacher: {REMEDY}."
            )

    def forward(self, images: Tensor, batched_inputs: list[dict[str, Any]]) -> SegOutput:
        """The teacher's maps of a batch.

        Args:
            images: (N, C, H, W), for their device.
            batched_inputs: the dicts of the images, each with its ``view``, a row of the cache.
        """
        maps = self.cache.read([each["view"] for each in batched_inputs])
        found = {
            name: torch.from_numpy(value).to(images.device, non_blocking=True) for name, value in maps.items()
        }
        k, a, (n, _, h, w) = self.spec.num_classes, self.spec.feature_channels, found["logits"].shape
        return SegOutput(
            logits=found.pop("logits"),
            feature=found.pop("feature", torch.empty(n, a, h, w, device="meta")),
            weight=torch.empty(k, a, device="meta"),
            stages=found,
        )
