"""FAKD on top of channel-wise distillation."""

from dataclasses import dataclass

from torch import Tensor

from ..functional.augmentation import logit_variance, margin_variance
from ..functional.divergence import Offset, softmax_kl
from ..functional.resize import aligned_logits
from ..registry import DISTILL_LOSS_REGISTRY
from ..structures import LossInputs
from ._fakd import FeatureAugmentedLoss, with_void_column
from .base import option


@DISTILL_LOSS_REGISTRY.register()
class FAKDChannel(FeatureAugmentedLoss):
    r"""CWD under infinitely many feature augmentations (Yuan et al. 2022, Eq. 7, corrected).

    With v_ci = lambda q[c, y_i] / (2 tau^2) and q[c, y] = w_c' Sigma_y w_c, the bound separates:

    $$
    \frac{\tau^2}{N K} \sum_c \left[ \mathrm{LSE}_k\left( \frac{z_{ck}}{\tau} + v_{ck} \right) -
    \sum_i P_{ci} \frac{z_{ci}}{\tau} + \sum_i P_{ci} v_{ci} \right]
    $$

    so it costs as much as CWD. ``form`` sets the sign of the last term: + ``bound``, 0 ``tight``
    (Jensen's inequality only where it is needed, a tighter bound), - ``shift`` (Algorithm 1: augmented
    logits, then the plain loss). With the classifier detached the three have the same gradient. The
    teacher's entropy is subtracted, so lambda = 0 is exactly CWD. Eq. 7 is printed with s_i - s_k
    negated, the sum to C instead of M and 1 / (2 tau); only the last is offered: ``variance: paper``.

    ``offset: margin`` takes (w_c - w_y)' Sigma_y (w_c - w_y) instead of q, ISDA's sigma^2.
    """

    paper = "Yuan et al. 2022 (FAKD), Eq. 7"

    @dataclass
    class Config(FeatureAugmentedLoss.Config):
        weight: float = option(
            5.0, "factor of this loss in the sum; CWD's in mmsegmentation, for tau 1", least=0
        )
        offset: str = option(
            "variance",
            "variance: of the logit; margin: of its difference to that of the label",
            choices=("variance", "margin"),
        )

    def forward(self, inputs: LossInputs) -> Tensor:
        self.update_statistics(inputs)
        weight, sigma = self.classifier(inputs), self.statistics.covariance
        if self.config.offset == "variance":
            table = logit_variance(weight, sigma)
        else:
            table = margin_variance(weight, sigma).T
        labels, valid = self.labels_and_mask(inputs)
        offset = Offset(with_void_column(self.offsets(table, inputs.progress)), labels, self.config.form)
        student, teacher = aligned_logits(inputs.student.logits, inputs.teacher.logits)
        total = softmax_kl(student, teacher, self.config.tau, "pixels", valid, offset)
        return self.config.tau**2 * total / (student.shape[0] * student.shape[1])
