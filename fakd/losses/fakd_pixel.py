"""FAKD on top of pixel-wise distillation."""

from dataclasses import dataclass

from torch import Tensor

from ..functional.augmentation import (
    augmented_pixel_kl,
    logit_variance,
    margin_variance,
    margin_variance_by_label,
)
from ..functional.divergence import Offset, softmax_kl
from ..functional.resize import aligned_logits
from ..registry import DISTILL_LOSS_REGISTRY
from ..structures import LossInputs
from ._fakd import FeatureAugmentedLoss, with_void_column
from .base import option


@DISTILL_LOSS_REGISTRY.register()
class FAKDPixel(FeatureAugmentedLoss):
    r"""PD under infinitely many feature augmentations (Yuan et al. 2022, Eq. 8).

    $$
    \frac{T^2}{N M} \sum_i \sum_c p_{ic} \left[ \mathrm{LSE}_k\left( \frac{z_{ik}}{T} +
    \frac{\lambda}{2 T^2} D[c, k] \right) - \frac{z_{ic}}{T} \right]
    $$

    with D[c, k] = (w_k - w_c)' Sigma (w_k - w_c) and Sigma that of the summed class c (``class``, as Eq.
    8 prints it) or of the pixel's own label (``label``, the distribution of Eq. 6). The teacher's entropy
    is subtracted, so lambda = 0 is exactly PD. At lambda = 1 the bound is nearly twice the expectation it
    bounds: a surrogate, not an estimate. With the classifier detached it can diverge, because larger
    margins cause larger variances and vice versa: then keep the gradient, or set ``max_offset``.

    The other forms, of which ``shift`` is the default, add one offset v per logit, of the pixel's
    label: ``tight`` bounds only the LSE, with
    v = (lambda / 2 T^2) w_k' Sigma_y w_k; ``shift`` is PD of the augmented logits z + T v.
    """

    paper = "Yuan et al. 2022 (FAKD), Eq. 8"

    @dataclass
    class Config(FeatureAugmentedLoss.Config):
        covariance_of: str = option(
            "class", "in the bound: of the summed class, or of the pixel's label", choices=("class", "label")
        )

    def forward(self, inputs: LossInputs) -> Tensor:
        self.update_statistics(inputs)
        weight, sigma = self.classifier(inputs), self.statistics.covariance
        labels, valid = self.labels_and_mask(inputs)
        student, teacher = aligned_logits(inputs.student.logits, inputs.teacher.logits)
        tau = self.config.tau
        if self.config.form == "bound":
            by_label = self.config.covariance_of == "label"
            table = (margin_variance_by_label if by_label else margin_variance)(weight, sigma)
            table = self.offsets(table, inputs.progress)
            total = augmented_pixel_kl(student, teacher, table, labels, tau, valid)
        else:
            table = with_void_column(self.offsets(logit_variance(weight, sigma), inputs.progress))
            offset = Offset(table, labels, self.config.form)
            total = softmax_kl(student, teacher, tau, "classes", valid, offset)
        count = labels.numel() if valid is None else valid.sum().clamp(min=1)
        return tau**2 * total / count
