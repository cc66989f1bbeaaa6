"""Decoupled distillation, per pixel."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..functional.divergence import MASKED, softmax_kl
from ..registry import DISTILL_LOSS_REGISTRY
from ..structures import LossInputs, SegSpec
from ._fakd import AUGMENT, build_augmentation
from ._taps import STANDARDIZE, class_logits
from .base import DistillLoss, option


@DISTILL_LOSS_REGISTRY.register()
class DKD(DistillLoss):
    r"""PD decoupled into a target-class term and a non-target-class term (Zhao et al. 2022).

    $$
    T^2 \mathrm{mean}_i \left[ \alpha\ \mathrm{KL}(b^t_i \parallel b^s_i) +
    \beta\ \mathrm{KL}(r^t_i \parallel r^s_i) \right]
    $$

    over labelled pixels, with b = (p_y, 1 - p_y) for the softmax p over classes of the logits over T at
    the pixel's label y, and r the softmax over all classes but y. PD is the case alpha = 1 with 1 - p^t_y
    in place of beta. The paper is about image classification; here every pixel is treated as an image.
    ``standardize``: see ``PD``.
    """

    paper = "Zhao et al. 2022 (DKD)"
    needs_labels = True

    @dataclass
    class Config(DistillLoss.Config):
        tau: float = option(1.0, "temperature T", above=0)
        alpha: float = option(1.0, "factor of the target-class term", least=0)
        beta: float = option(0.5, "factor of the non-target-class term", least=0)
        standardize: bool = option(False, STANDARDIZE)
        augment: float = option(0.0, AUGMENT, least=0)

    def __init__(self, config: Config, student: SegSpec, teacher: SegSpec) -> None:
        super().__init__(config, student, teacher)
        self.augmentation = build_augmentation(config.augment, student)

    def forward(self, inputs: LossInputs) -> Tensor:
        if self.augmentation is not None:
            inputs = self.augmentation(inputs, self.config.tau)
        logits = class_logits(inputs, self.config.standardize)
        valid = inputs.valid.flatten(1)
        label = inputs.labels.flatten(1).where(valid, 0)[:, None]
        binary, others = [], []  # of the student, then of the teacher
        for scores in logits:
            scores = scores / self.config.tau
            rest = scores.scatter(1, label, MASKED)
            others.append(rest)
            # The softmax of these two is b, without a logarithm of 1 - p_y.
            binary.append(torch.cat([scores.gather(1, label), rest.logsumexp(1, keepdim=True)], 1))
        total = self.config.alpha * softmax_kl(binary[0], binary[1], 1.0, "classes", valid)
        total = total + self.config.beta * softmax_kl(others[0], others[1], 1.0, "classes", valid)
        return self.config.tau**2 * total / valid.sum().clamp(min=1)
