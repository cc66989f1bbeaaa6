"""Channel-wise distillation."""

from dataclasses import dataclass

from ..functional.divergence import channel_kl
from ..functional.resize import aligned_logits
from ..registry import DISTILL_LOSS_REGISTRY
from .base import DistillLoss, option


@DISTILL_LOSS_REGISTRY.register()
class CWD(DistillLoss):
    """KL divergence over the pixels of every channel of the logits (Shu et al. 2021; FAKD's Eq. 2).

        tau^2 / (N K) sum_n sum_c sum_i P_nci (log P_nci - log Q_nci)

    with P and Q the softmaxes over the pixels of image n of channel c over tau. Images do not mix. Void
    pixels take part unless ``mask_ignored``.
    """

    paper = "Shu et al. 2021; FAKD Eq. 2"

    @dataclass
    class Config(DistillLoss.Config):
        weight: float = option(3.0, "factor of this loss in the sum; the authors' for tau 4")
        tau: float = option(4.0, "temperature")
        mask_ignored: bool = option(False, "leave void pixels out of both softmaxes")

    def forward(self, inputs):
        student, teacher = aligned_logits(inputs.student.logits, inputs.teacher.logits)
        valid = inputs.valid.flatten(1) if self.config.mask_ignored else None
        return channel_kl(student, teacher, self.config.tau, valid)
