"""What the two losses of FAKD share: options, statistics and the size of the augmentation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..functional.augmentation import logit_variance
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
        return inputs.classes.flatten(1), inputs.kept.flatten(1) if self.config.mask_ignored else None


AUGMENT = "lambda of FAKD's offset, added to the student's logits first; 0 is none"


class LogitAugmentation(nn.Module):
    """FAKD's offset for losses that have no closed form of their own: logits z + tau v in place of z.

    v = lambda(t) w_c' Sigma_y w_c / (2 tau^2) of the pixel's label y, as in the form ``shift`` of
    :class:`FAKDPixel`; 0 without a label. lambda grows as a cosine, the classifier gets no gradient from v.

    Args:
        lambda_: at the end of the training.
        student: the network whose logits they are.
    """

    def __init__(self, lambda_: float, student: SegSpec) -> None:
        super().__init__()
        self.schedule = ramp("cosine", lambda_)
        self.statistics = ClassCovariance(student.num_classes, student.feature_channels)

    def forward(self, inputs: LossInputs, tau: float) -> LossInputs:
        """The inputs with the student's logits augmented; in training its statistics are updated first.

        Args:
            inputs: of the loss.
            tau: the loss's temperature, by which it divides the logits.
        """
        if self.training:
            self.statistics.update(inputs.student.feature, inputs.labels, inputs.valid)
        variance = logit_variance(inputs.student.weight.detach(), self.statistics.covariance)  # (K, K)
        strength = self.schedule(inputs.progress) / (2 * tau)
        table = with_void_column(variance * strength)  # (K, K + 1)   tau v
        logits = inputs.student.logits + table[:, inputs.classes].transpose(0, 1)  # (N, K, h, w)
        return replace(inputs, student=replace(inputs.student, logits=logits))


def build_augmentation(lambda_: float, student: SegSpec) -> LogitAugmentation | None:
    """The augmentation, or None for lambda 0."""
    return LogitAugmentation(lambda_, student) if lambda_ else None


def with_void_column(table: Tensor) -> Tensor:
    """(K, K) to (K, K + 1): the offset of void pixels is zero."""
    return torch.cat([table, table.new_zeros(table.shape[0], 1)], 1)
