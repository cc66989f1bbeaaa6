"""Resizing labels and teacher maps to the student's grid."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_labels(labels: Tensor, size: Sequence[int], mode: str = "nearest") -> Tensor:
    """Down-sample a label map by picking pixels; no new ids can appear.

    Args:
        labels: (N, H, W) integer.
        size: (h, w).
        mode: "nearest" takes the top-left pixel of each cell, as the papers' code does;
            "nearest-exact" its centre.

    Returns:
        (N, h, w) of the same dtype.
    """
    if labels.shape[-2:] == tuple(size):
        return labels
    # float32 holds every id below 2**24 exactly.
    resized = F.interpolate(labels[:, None].float(), size=tuple(size), mode=mode)
    return resized[:, 0].to(labels.dtype)


def resize_like(source: Tensor, target: Tensor) -> Tensor:
    """Bilinearly resize (N, C, h', w') to the grid of ``target`` (N, *, h, w), if they differ."""
    if source.shape[-2:] == target.shape[-2:]:
        return source
    return F.interpolate(source, size=target.shape[-2:], mode="bilinear", align_corners=False)


def check_same_classes(student: Tensor, teacher: Tensor) -> None:
    """Raise ValueError unless both (N, K, ...) logits have the same N and K."""
    if student.shape[:2] != teacher.shape[:2]:
        raise ValueError(
            f"student logits have (N, K) = {tuple(student.shape[:2])}, the teacher's "
            f"{tuple(teacher.shape[:2])}: both networks must see the same images and classes "
            "(MODEL.SEM_SEG_HEAD.NUM_CLASSES of both configs)."
        )


def aligned_logits(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both logits as (N, K, M), the teacher's resized to the student's grid without gradient.

    Raises:
        ValueError: N or K differ.
    """
    check_same_classes(student, teacher)
    with torch.no_grad():
        teacher = resize_like(teacher, student)
    return student.flatten(2), teacher.flatten(2)
