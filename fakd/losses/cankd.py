"""Cross-attention distillation."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..functional.relation import standardized_channels
from ..layers import build_adapter
from ..registry import DISTILL_LOSS_REGISTRY
from ..structures import LossInputs, SegSpec
from ._taps import tapped_maps
from .base import DistillLoss, option


@DISTILL_LOSS_REGISTRY.register()
class CanKD(DistillLoss):
    r"""Distance of normalised features after the student has attended to the teacher's (CanKD, 2026).

    $$
    \frac{1}{2 N A M} \sum (n(z) - n(t))^2, \quad
    z = s + W\left( \frac{1}{M} \theta(s)^\top \phi(t)\ g(t) \right)
    $$

    with s the student's feature in front of the classifier, after a 1x1 convolution where channels differ, t
    the teacher's, theta, phi, g and W 1x1 convolutions to ``channels`` of A and back, and n the
    standardisation of each channel over the pixels of its image. Every pixel of the student so sees all of
    the teacher's; the convolutions are dropped after training. It lies in [0, 2]. Without a softmax the
    products are computed as theta(s)' (phi(t) g(t)'), at a cost that grows with M and not M^2. Void pixels
    take part.
    """

    paper = "CanKD 2026 (arXiv 2511.21503)"

    @dataclass
    class Config(DistillLoss.Config):
        weight: float = option(5.0, "factor of this loss in the sum; the authors take 5 or 10", least=0)
        channels: float = option(0.5, "of the attention, as a share of the teacher's", above=0, most=1)

    @classmethod
    def reads_teacher_logits(cls, config: Config) -> bool:
        return False

    def __init__(self, config: Config, student: SegSpec, teacher: SegSpec) -> None:
        super().__init__(config, student, teacher)
        outer = teacher.feature_channels
        inner = max(1, round(config.channels * outer))
        self.adapter = build_adapter("CanKD", student.feature_channels, outer)
        self.query, self.key, self.value = (nn.Conv2d(outer, inner, 1) for _ in range(3))
        self.back = nn.Conv2d(inner, outer, 1)

    def forward(self, inputs: LossInputs) -> Tensor:
        feature, target = tapped_maps(inputs, "feature")
        feature = self.adapter(feature)
        everywhere = torch.ones_like(target[:, 0], dtype=torch.bool)
        student, teacher = (
            standardized_channels(x, everywhere) for x in (self.attended(feature, target), target)
        )
        return (student - teacher).square().mean() / 2

    def attended(self, feature: Tensor, target: Tensor) -> Tensor:
        """z of s and t, both (N, A, h, w)."""
        query, key, value = (
            conv(x).flatten(2)
            for conv, x in ((self.query, feature), (self.key, target), (self.value, target))
        )  # (N, D, M)
        summary = value @ key.transpose(1, 2) / key.shape[2]  # (N, D, D)   g(t) phi(t)' / M
        return feature + self.back((summary @ query).unflatten(2, feature.shape[2:]))
