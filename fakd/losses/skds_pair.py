"""Pair-wise term of structured knowledge distillation."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ..functional.relation import similarity_gap, unit_vectors
from ..registry import DISTILL_LOSS_REGISTRY
from ..structures import LossInputs
from ._taps import tapped_maps
from .base import DistillLoss, option


@DISTILL_LOSS_REGISTRY.register()
class SKDSPair(DistillLoss):
    r"""Matches pairwise similarities of an image's regions (Liu et al. 2019, section 3.1).

    $$
    \frac{1}{N P^2} \sum_n \sum_{ij} (s_i \cdot s_j - t_i \cdot t_j)^2
    $$

    over the P nodes of image n: the max-pooled feature, divided by its length. A node covers ``scale``
    times the map in each direction (4 nodes for 64x64), as in the authors' code, or, with ``kernel``, a
    square of that many pixels, as in CIRKD's. No projector is needed. Void pixels are included.
    """

    paper = "Liu et al. 2019 (SKDS), pair-wise"

    @dataclass
    class Config(DistillLoss.Config):
        weight: float = option(1.0, "factor of this loss in the sum; the authors' script takes 0.5", least=0)
        scale: float = option(0.5, "size of a node as a share of the map", above=0, most=1)
        kernel: int = option(0, "size of a node in pixels, in place of scale; 0 takes scale", least=0)
        detach_norm: bool = option(True, "no gradient through a node's length, as in the authors' code")

    @classmethod
    def reads_teacher_logits(cls, config: Config) -> bool:
        return False

    def forward(self, inputs: LossInputs) -> Tensor:
        student, teacher = (self.nodes(x) for x in tapped_maps(inputs, "feature"))
        return similarity_gap(student, teacher) / (student.shape[0] * student.shape[2] ** 2)

    def nodes(self, feature: Tensor) -> Tensor:
        """(N, A, h, w) to (N, A, P) unit vectors."""
        size = [self.config.kernel or max(1, int(self.config.scale * x)) for x in feature.shape[-2:]]
        pooled = F.max_pool2d(feature, size, size, ceil_mode=True)
        return unit_vectors(pooled.flatten(2), 1, detach_norm=self.config.detach_norm)
