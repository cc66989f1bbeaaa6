"""CIRKD, mini-batch term."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ..functional.contrast import LEAST_TAU, pairwise_kl, unit_rows
from ..registry import DISTILL_LOSS_REGISTRY
from ..structures import LossInputs
from ._taps import tapped_maps
from .base import DistillLoss, option


@DISTILL_LOSS_REGISTRY.register()
class CIRKDBatch(DistillLoss):
    r"""Matches pairwise pixel similarities across the batch (Yang et al. 2022, CIRKD, section 3.2).

    $$
    \frac{1}{N^2 M} \sum_{ij} \sum_r \mathrm{KL}\left( \mathrm{softmax}_k(t_{ir} \cdot t_{jk} / \tau)
    \parallel \mathrm{softmax}_k(s_{ir} \cdot s_{jk} / \tau) \right)
    $$

    over ordered pairs of images i, j of this process, i = j among them, with s and t the features in front of
    the classifiers divided by their norm. There is no projector, so channels may differ, and no tau^2. Void
    pixels are included, as in the authors' code.

    The similarities are computed in tiles, each for a pair and its mirror image, and recomputed for the
    gradient: memory grows with M, not M^2. ``pool`` averages features beforehand, which divides the work by
    pool^4; the authors do so, by 4, for maps of at least 256 x 256.
    """

    paper = "Yang et al. 2022 (CIRKD), section 3.2"

    @dataclass
    class Config(DistillLoss.Config):
        tau: float = option(0.1, "temperature of the similarities", least=LEAST_TAU)
        pool: int = option(1, "factor by which features are average-pooled first; 1: no pooling", least=1)

    @classmethod
    def reads_teacher_logits(cls, config: Config) -> bool:
        return False

    def forward(self, inputs: LossInputs) -> Tensor:
        student, teacher = tapped_maps(inputs, "feature")
        if self.config.pool > 1:
            student, teacher = (F.avg_pool2d(x, self.config.pool, ceil_mode=True) for x in (student, teacher))
        student, teacher = unit_rows(student), unit_rows(teacher)
        n, m, _ = student.shape
        return pairwise_kl(student, teacher, self.config.tau) / (n * n * m)
