"""Intra-class feature variation distillation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..functional.relation import centre_similarity
from ..registry import DISTILL_LOSS_REGISTRY
from ..structures import LossInputs
from ._taps import tapped_maps
from .base import DistillLoss, option


@DISTILL_LOSS_REGISTRY.register()
class IFVD(DistillLoss):
    r"""Matches the cosine of each pixel's feature to its class mean in the image (Wang et al. 2020).

    $$
    \frac{1}{N M} \sum_i \left( \cos(s_i, \mu^S_i) - \cos(t_i, \mu^T_i) \right)^2
    $$

    with mu_i the mean of the network's own feature over the pixels of image n that have the label of
    pixel i. The gradient reaches the student through the pixel and through the mean; no projector is
    needed, since only cosines are compared. Void pixels contribute 0 but are counted, as in public code,
    unless ``mask_ignored``. Time and memory do not grow with the number of classes.
    """

    paper = "Wang et al. 2020 (IFVD)"
    needs_labels = True

    @dataclass
    class Config(DistillLoss.Config):
        weight: float = option(200.0, "factor of this loss in the sum; CIRKD takes 20", least=0)
        mask_ignored: bool = option(False, "take the mean over labelled pixels only")

    @classmethod
    def reads_teacher_logits(cls, config: Config) -> bool:
        return False

    def forward(self, inputs: LossInputs) -> Tensor:
        student, teacher = tapped_maps(inputs, "feature")
        num_classes = inputs.student.logits.shape[1]
        classes = inputs.classes
        with torch.no_grad():
            target = centre_similarity(teacher, classes, num_classes)
        gap = (centre_similarity(student, classes, num_classes) - target).square().sum()
        return gap / (inputs.valid.sum().clamp(min=1) if self.config.mask_ignored else classes.numel())
