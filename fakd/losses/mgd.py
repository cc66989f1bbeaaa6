"""Masked generative distillation."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..layers import build_adapter
from ..registry import DISTILL_LOSS_REGISTRY
from ..structures import LossInputs, SegSpec
from ._taps import tapped_maps
from .base import DistillLoss, option


@DISTILL_LOSS_REGISTRY.register()
class MGD(DistillLoss):
    r"""Generates the teacher's feature from the student's with most pixels masked (Yang et al. 2022, MGD).

    $$
    \frac{1}{N} \sum_n \lVert t_n - G(m_n P s_n) \rVert^2
    $$

    with s and t the features in front of the classifiers, P a 1x1 convolution where channels differ, m a new
    mask every step whose pixels are 0 with probability ``mask_ratio`` and the same for all channels, and G a
    3x3 convolution, a ReLU and a 3x3 convolution between the teacher's channels. The sum runs over channels
    and pixels, hence the small weight. A re-implementation of the formula.

    G has 18 A^2 weights for the teacher's A channels, and costs as many multiply-adds per pixel and forward
    pass: 4.7 million for 512 channels, 75 million for 2048.
    """

    paper = "Yang et al. 2022 (MGD)"

    @dataclass
    class Config(DistillLoss.Config):
        weight: float = option(2e-5, "factor of this loss in the sum", least=0)
        mask_ratio: float = option(0.75, "share of the pixels that are masked", least=0, below=1)
        mask_ignored: bool = option(False, "mask all void pixels and leave them out of the sum")

    @classmethod
    def reads_teacher_logits(cls, config: Config) -> bool:
        return False

    def __init__(self, config: Config, student: SegSpec, teacher: SegSpec) -> None:
        super().__init__(config, student, teacher)
        channels = teacher.feature_channels
        self.adapter = build_adapter("MGD", student.feature_channels, channels)
        self.generator = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, inputs: LossInputs) -> Tensor:
        return self.restore(inputs)[0]

    def restore(self, inputs: LossInputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The loss, what the generator makes of the masked feature, the teacher's, and the pixels that count.

        The features are (N, A, h, w), the mask (N, 1, h, w) bool.
        """
        feature, target = tapped_maps(inputs, "feature")
        feature = self.adapter(feature)
        n, _, h, w = feature.shape
        kept = torch.rand(n, 1, h, w, device=feature.device) >= self.config.mask_ratio
        counted = inputs.kept[:, None] if self.config.mask_ignored else torch.ones_like(kept)
        restored = self.generator(feature * (kept & counted))
        return ((restored - target) * counted).square().sum() / n, restored, target, counted
