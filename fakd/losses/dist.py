"""DIST: relations between classes and within them."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ..functional.resize import aligned_logits
from ..registry import DISTILL_LOSS_REGISTRY
from ..structures import LossInputs, SegSpec
from ._fakd import AUGMENT, build_augmentation
from .base import DistillLoss, option


@DISTILL_LOSS_REGISTRY.register()
class DIST(DistillLoss):
    r"""One minus the correlation of the probabilities, of each pixel and of each class (Huang et al. 2022).

    $$
    \tau^2 \left( \beta\ \mathrm{mean}_i [1 - \rho(p_{i:}, q_{i:})] +
    \gamma\ \mathrm{mean}_c [1 - \rho(p_{:c}, q_{:c})] \right)
    $$

    with p and q the softmaxes over classes of teacher and student over tau, as matrices of the labelled
    pixels of the batch by classes, and rho Pearson's correlation of two rows or two columns. Only relations
    count, not the scale, which suits a teacher much stronger than the student. Where probabilities are
    nearly uniform their correlation is noise with a steep gradient, so the teacher must be trained.
    With two classes the first rho is +1 or -1, so the method is weak there. A re-implementation of the
    formula.
    """

    paper = "Huang et al. 2022 (DIST)"

    @dataclass
    class Config(DistillLoss.Config):
        tau: float = option(1.0, "temperature", above=0)
        beta: float = option(1.0, "factor of the term over the classes of a pixel", least=0)
        gamma: float = option(1.0, "factor of the term over the pixels of a class", least=0)
        mask_ignored: bool = option(True, "leave void pixels out")
        augment: float = option(0.0, AUGMENT, least=0)

    def __init__(self, config: Config, student: SegSpec, teacher: SegSpec) -> None:
        super().__init__(config, student, teacher)
        self.augmentation = build_augmentation(config.augment, student)

    def forward(self, inputs: LossInputs) -> Tensor:
        if self.augmentation is not None:
            inputs = self.augmentation(inputs, self.config.tau)
        logits = aligned_logits(inputs.student.logits, inputs.teacher.logits)
        q, p = ((x / self.config.tau).softmax(1).transpose(0, 1).flatten(1) for x in logits)  # (K, N M)
        weight = q.new_ones(1, q.shape[1])
        if self.config.mask_ignored:
            weight = inputs.kept.reshape(1, -1).to(q.dtype)
        between = (1 - correlation(q, p, weight=None, dim=0)) * weight[0]
        between = between.sum() / weight.sum().clamp(min=1)
        # Without a pixel every column is zero, and so would be its correlation.
        within = (1 - correlation(q, p, weight, dim=1)).mean() * weight.max()
        return self.config.tau**2 * (self.config.beta * between + self.config.gamma * within)


def correlation(a: Tensor, b: Tensor, weight: Tensor | None, dim: int) -> Tensor:
    """Pearson's correlation of (K, P) matrices along ``dim``, over entries of weight 1, not 0."""

    def centred(x: Tensor) -> Tensor:
        if weight is None:
            return x - x.mean(dim, keepdim=True)
        return (x - (x * weight).sum(dim, keepdim=True) / weight.sum().clamp(min=1)) * weight

    return F.cosine_similarity(centred(a), centred(b), dim=dim)
