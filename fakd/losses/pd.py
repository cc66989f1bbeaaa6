"""Pixel-wise distillation."""

from dataclasses import dataclass

from torch import Tensor

from ..functional.divergence import pixel_kl
from ..registry import DISTILL_LOSS_REGISTRY
from ..structures import LossInputs, SegSpec
from ._fakd import AUGMENT, build_augmentation
from ._taps import STANDARDIZE, class_logits
from .base import DistillLoss, option


@DISTILL_LOSS_REGISTRY.register()
class PD(DistillLoss):
    r"""KL divergence over classes at every pixel (Hinton et al. 2015; FAKD's Eq. 1).

    $$
    \frac{T^2}{N M} \sum_i \sum_c p_{ic} (\log p_{ic} - \log q_{ic})
    $$

    with p and q the softmaxes over classes of the teacher's and student's logits over T. Eq. 1 of FAKD is
    printed with ``t_k`` in the teacher's normaliser; it should be ``t_i``. Void pixels are included unless
    ``mask_ignored``, as in all public code. ``standardize`` first divides the centred logits of a pixel by
    their deviation over the classes, so that the student need not match their scale (Sun et al. 2024,
    LogitStd).
    """

    paper = "Hinton et al. 2015; FAKD Eq. 1"

    @dataclass
    class Config(DistillLoss.Config):
        tau: float = option(1.0, "temperature T", above=0)
        mask_ignored: bool = option(False, "leave void pixels out")
        standardize: bool = option(False, STANDARDIZE)
        augment: float = option(0.0, AUGMENT, least=0)

    def __init__(self, config: Config, student: SegSpec, teacher: SegSpec) -> None:
        super().__init__(config, student, teacher)
        self.augmentation = build_augmentation(config.augment, student)

    def forward(self, inputs: LossInputs) -> Tensor:
        if self.augmentation is not None:
            inputs = self.augmentation(inputs, self.config.tau)
        student, teacher = class_logits(inputs, self.config.standardize)
        valid = inputs.kept.flatten(1) if self.config.mask_ignored else None
        return pixel_kl(student, teacher, self.config.tau, valid)
