"""What the two losses of FAKD share: options, statistics and the size of the augmentation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..functional.divergence import FORMS
from ..schedules import SCHEDULES, ramp
from ..statistics import ClassCovariance
from ..structures import LossInputs, SegSpec
from .base import DistillLoss, option


class FeatureAugmentedLoss(DistillLoss):
    """A distillation loss under features drawn from N(s_i, lambda Sigma_y), in closed form."""

    needs_labels = True

    @dataclass
    class Config(DistillLoss.Config):
        tau: float = option(1.0, "temperature", above=0)
        lambda_: float = option(
            1.0, "lambda at the end of the schedule, the strength of the augmentation", least=0
        )
        lambda_schedule: str = option(
            "cosine", "how lambda grows from 0: cosine, linear or constant", choices=SCHEDULES
        )
        form: str = option(
            "shift",
            "bound as in the equations, its tight form, or shift as in Algorithm 1",
            choices=tuple(FORMS),
        )
        variance: str = option(
            "exact",
            "lambda / (2 tau^2), or `paper`: lambda / (2 tau) as printed",
            choices=("exact", "paper"),
        )
        covariance: str = option("full", "full or diagonal", choices=("full", "diagonal"))
        detach_classifier: bool = option(True, "keep the augmentation's gradient out of the classifier")
        max_offset: float = option(
            0.0, "upper limit of the offsets v, against divergence; 0: no limit", least=0
        )
        mask_ignored: bool = option(False, "leave void pixels out, instead of leaving them unaugmented")

    def __init__(self, config: Config, student: SegSpec, teacher: SegSpec) -> None:
        super().__init__(config, student, teacher)
        self.schedule = ramp(config.lambda_schedule, config.lambda_)
        self.statistics = ClassCovariance(
            student.num_classes, student.feature_channels, diagonal=config.covariance == "diagonal"
        )

    def update_statistics(self, inputs: LossInputs) -> None:
        """Update the covariances with the batch before the loss is computed, as in Algorithm 1."""
        if self.training:
            self.statistics.update(inputs.student.feature, inputs.labels, inputs.valid)

    def classifier(self, inputs: LossInputs) -> Tensor:
        """(K, A) weight of the student's classifier, with gradient only if that is asked for."""
        weight = inputs.student.weight
        return weight.detach() if self.config.detach_classifier else weight

    def offsets(self, variance: Tensor, progress: float) -> Tensor:
        """v = lambda(t) variance / (2 tau^2) for a table of logit variances, and its log entries."""
        lambda_t = self.schedule(progress)
        tau = self.config.tau
        v = variance * (lambda_t / (2 * (tau if self.config.variance == "paper" else tau**2)))
        if self.config.max_offset > 0:
            v = v.clamp(max=self.config.max_offset)
        self.log_scalar("lambda", lambda_t)
        self.log_scalar("offset_mean", v.mean())
        self.log_scalar("offset_max", v.max())
        return v

    def labels_and_mask(self, inputs: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Labels (N, M) with K where void, whose offset is zero, and the mask of the pixels that count."""
        num_classes = inputs.student.logits.shape[1]
        labels = torch.where(inputs.valid, inputs.labels, num_classes).flatten(1)
        return labels, inputs.kept.flatten(1) if self.config.mask_ignored else None


def with_void_column(table: Tensor) -> Tensor:
    """(K, K) to (K, K + 1): the offset of void pixels is zero."""
    return torch.cat([table, table.new_zeros(table.shape[0], 1)], 1)
