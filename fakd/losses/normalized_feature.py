"""Distance of normalised features."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ..functional.resize import resize_like
from ..layers import build_adapter
from ..registry import DISTILL_LOSS_REGISTRY
from ..structures import LossInputs, SegSpec
from .base import DistillLoss, option


@DISTILL_LOSS_REGISTRY.register()
class NormalizedFeature(DistillLoss):
    """Squared distance of unit-length features at every pixel.

        1 / (N M) sum_i || P s_i / |P s_i| - t_i / |t_i| ||^2

    with s and t the features in front of the classifiers, norms over channels, and P a 1x1 convolution where
    channels differ. It lies in [0, 4] and equals 2 - 2 cos. Void pixels take part unless ``mask_ignored``. A
    re-implementation of plain feature distillation, which needs a long training to show what it can do.
    """

    paper = "feature distillation, FitNets (Romero et al. 2015) on unit vectors"

    @dataclass
    class Config(DistillLoss.Config):
        mask_ignored: bool = option(False, "leave void pixels out")

    def __init__(self, config: Config, student: SegSpec, teacher: SegSpec) -> None:
        super().__init__(config, student, teacher)
        self.adapter = build_adapter("NormalizedFeature", student.feature_channels, teacher.feature_channels)

    def forward(self, inputs: LossInputs) -> Tensor:
        feature = self.adapter(inputs.student.feature)
        target = resize_like(inputs.teacher.feature, feature)
        error = (F.normalize(feature, dim=1) - F.normalize(target, dim=1)).square().sum(1)
        if not self.config.mask_ignored:
            return error.mean()
        return (error * inputs.valid).sum() / inputs.valid.sum().clamp(min=1)
