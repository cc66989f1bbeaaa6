"""Selecting the map of a network that a loss compares."""

from __future__ import annotations

import torch
from torch import Tensor

from ..functional.relation import standardized
from ..functional.resize import aligned_logits, resize_labels, resize_like
from ..structures import LossInputs, SegOutput, SegSpec


def tap_channels(spec: SegSpec, tap: str, key: str) -> int:
    """Channels of a map given by name.

    Args:
        spec: of the network.
        tap: ``feature``, ``logits`` or the name of a stage.
        key: the config key that named it.

    Raises:
        ValueError: there is no such map.
    """
    known = {"feature": spec.feature_channels, "logits": spec.num_classes, **spec.stage_channels}
    if tap not in known:
        raise ValueError(f"{key} is '{tap}', which a network here lacks; choose from {', '.join(known)}.")
    return known[tap]


def tap_map(output: SegOutput, tap: str) -> Tensor:
    """(N, C, h, w) of a name that :func:`tap_channels` knows."""
    return getattr(output, tap) if tap in ("feature", "logits") else output.stages[tap]


def tapped_maps(inputs: LossInputs, tap: str) -> tuple[Tensor, Tensor]:
    """The student's map, and the teacher's on its grid and without gradient.

    Raises:
        ValueError: the two networks saw different numbers of images.
    """
    student, teacher = tap_map(inputs.student, tap), tap_map(inputs.teacher, tap)
    if len(student) != len(teacher):
        raise ValueError(f"the student's {tap} is of {len(student)} images, the teacher's of {len(teacher)}.")
    with torch.no_grad():
        return student, resize_like(teacher.detach(), student)


STANDARDIZE = "standardise the logits over the classes first, as LogitStd does"


def class_logits(inputs: LossInputs, standardize: bool) -> tuple[Tensor, Tensor]:
    """Both networks' logits (N, K, M) on the student's grid, with mean 0 and deviation 1 if ``standardize``.

    Raises:
        ValueError: the networks differ in images or classes.
    """
    student, teacher = aligned_logits(inputs.student.logits, inputs.teacher.logits)
    return (standardized(student), standardized(teacher)) if standardize else (student, teacher)


def valid_mask_for(inputs: LossInputs, like: Tensor) -> Tensor:
    """(N, 1, h, w) bool, the pixels that are not void on the grid of a map."""
    return resize_labels(inputs.kept, like.shape[-2:])[:, None]
