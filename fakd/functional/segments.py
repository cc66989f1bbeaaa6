"""Grouping pixels by class without a host synchronisation."""

import torch
from torch import Tensor

PACKED_ROW = 64  # entries of a row of pixels of one class


def class_counts(labels: Tensor, num_classes: int) -> Tensor:
    """(num_classes,) int64 pixels per class; ``labels`` int64 in [0, num_classes).

    ``torch.bincount`` does the same, but synchronises with the host.
    """
    counts = torch.zeros(num_classes, dtype=torch.int64, device=labels.device)
    return counts.index_add_(0, labels, torch.ones_like(labels))


def pack_by_class(labels: Tensor, num_classes: int, block: int) -> tuple[Tensor, Tensor]:
    """Arrange pixels in rows of ``block`` that hold one class each, the last of a class padded.

    The number of rows depends on the shapes alone, so nothing synchronises with the host.

    Args:
        labels: (P,) int64 in [0, num_classes).
        num_classes: number of classes.
        block: pixels per row.

    Returns:
        index: (R, block) int64 positions in ``labels``; P marks a padded place.
        row_class: (R,) int64 class of each row.
    """
    num_pixels = labels.numel()
    rows = num_pixels // block + num_classes
    counts = class_counts(labels, num_classes)
    rows_of_class = (counts + block - 1) // block
    order = torch.argsort(labels, stable=True)
    sorted_labels = labels[order]
    rank = torch.arange(num_pixels, device=labels.device) - (counts.cumsum(0) - counts)[sorted_labels]
    first_row = rows_of_class.cumsum(0) - rows_of_class
    index = torch.full((rows * block,), num_pixels, dtype=torch.int64, device=labels.device)
    index[first_row[sorted_labels] * block + rank] = order
    row = torch.arange(rows, device=labels.device)
    row_class = torch.searchsorted(rows_of_class.cumsum(0), row, right=True).clamp_(max=num_classes - 1)
    return index.view(rows, block), row_class
