"""The teacher's classes in place of labels, where there are none."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from ..functional.resize import resize_like

logger = logging.getLogger(__name__)


class PseudoLabels:
    """Labels for unlabelled pixels: the teacher's likeliest class where it is sure enough, else void.

    Args:
        confidence: the least probability; 1 leaves all of them void.
        ignore_value: label of void.
    """

    def __init__(self, confidence: float, ignore_value: int) -> None:
        self.confidence, self.ignore_value = confidence, ignore_value
        self._shares: Tensor | float = 0.0  # summed over the steps since the last log
        self._steps = 0

    def __call__(self, labels: Tensor, unlabelled: Tensor, logits: Tensor) -> Tensor:
        """The labels with those of the teacher.

        Args:
            labels: (N, h, w) of class ids and void.
            unlabelled: (N, h, w) bool.
            logits: (N, K, h', w') of the teacher.

        Raises:
            ValueError: the teacher has no classes.
        """
        if self.confidence >= 1:
            return labels
        if not logits.shape[1]:
            raise ValueError(
                "KD.PSEUDO_CONFIDENCE asks for the teacher's classes, but it has none (KD.TEACHER.BACKBONE): "
                "set KD.PSEUDO_CONFIDENCE to 1, or take a trained network as the teacher."
            )
        probability, label = resize_like(logits, labels[:, None]).softmax(1).max(1)
        sure = unlabelled & (probability >= self.confidence)
        self._shares = self._shares + sure.sum() / unlabelled.sum().clamp(min=1)
        self._steps += 1
        return torch.where(sure, label, labels)

    def pop_scalars(self) -> dict[str, Tensor]:
        """The share of unlabelled pixels that got a label since the last call; warns if none did."""
        if not self._steps:
            return {}
        share = torch.as_tensor(self._shares / self._steps)
        self._shares, self._steps = 0.0, 0
        if share == 0:
            logger.warning(
                "No pixel of the unlabelled images passes KD.PSEUDO_CONFIDENCE %g: lower it, or set it to 1 "
                "if the teacher's classes are not to be used.",
                self.confidence,
            )
        return {"pseudo_labels/share": share}
