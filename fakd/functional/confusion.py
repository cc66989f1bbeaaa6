"""Confusion matrix of a segmentation and the metrics that follow from it."""

import torch
from torch import Tensor

from .segments import class_counts


def confusion_matrix(prediction: Tensor, label: Tensor, num_classes: int, ignore_value: int) -> Tensor:
    """Count how often each label was predicted as each class.

    Counts ``1 + label * K + prediction``; void pixels go to bin 0, so no boolean indexing, whose output
    size the host would wait for, is needed.

    Args:
        prediction: (H, W) or (N, H, W) integer class ids in [0, K).
        label: same shape, class ids in [0, K) or ``ignore_value``.
        num_classes: K.
        ignore_value: label of void pixels; they are not counted.

    Returns:
        (K, K) int64 on the device of ``prediction``: row = label, column = prediction.

    Raises:
        ValueError: when the shapes differ; on the CPU also when a label lies outside the classes without
            being void, which other devices report later and in their own way.
    """
    if prediction.shape != label.shape:
        raise ValueError(
            f"prediction has shape {tuple(prediction.shape)} but label has {tuple(label.shape)}; "
            "resize the prediction to the label"
        )
    label = label.long()
    cell = torch.where(label == ignore_value, 0, 1 + label * num_classes + prediction.long())
    try:
        counts = class_counts(cell.flatten(), 1 + num_classes * num_classes)
    except IndexError as error:
        raise ValueError(
            f"a label or prediction lies outside the {num_classes} classes and is not {ignore_value}"
        ) from error
    return counts[1:].view(num_classes, num_classes)


def metrics_from_confusion(matrix: Tensor) -> dict[str, Tensor]:
    """Intersection over union and accuracy, per class and in the mean.

    The convention is that of detectron2's ``SemSegEvaluator``: a class without a single label pixel
    has no IoU and no accuracy (nan) and does not enter the means, even if it was predicted somewhere.
    Those false predictions still cost the class that was really there its intersection. (mmseg instead
    gives such a class an IoU of 0, so its mean is lower when classes are missing from the labels.)

    Args:
        matrix: (K, K) counts, row = label, column = prediction.

    Returns:
        float64 fractions in [0, 1]: scalars ``mIoU``, ``mAcc``, ``aAcc``; (K,) ``IoU``, ``Acc``.
    """
    matrix = matrix.double()
    hits = matrix.diagonal()
    labelled, predicted = matrix.sum(1), matrix.sum(0)
    acc = hits / labelled  # 0 / 0 = nan marks the absent class
    iou = torch.where(labelled > 0, hits / (labelled + predicted - hits), torch.nan)
    return {
        "mIoU": iou.nanmean(),
        "mAcc": acc.nanmean(),
        "aAcc": hits.sum() / labelled.sum(),
        "IoU": iou,
        "Acc": acc,
    }
