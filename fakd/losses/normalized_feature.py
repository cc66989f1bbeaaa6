"""Distance of normalised features."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..functional.relation import standardized_channels, unit_vectors
from ..layers import build_adapter
from ..registry import DISTILL_LOSS_REGISTRY
from ..structures import LossInputs, SegSpec
from ._taps import tapped_maps
from .base import DistillLoss, option


@DISTILL_LOSS_REGISTRY.register()
class NormalizedFeature(DistillLoss):
    r"""Squared distance of the normalised features.

    $$
    \mathrm{pixel} = \frac{1}{N M} \sum_i \left\lVert \frac{P s_i}{\lVert P s_i \rVert} -
    \frac{t_i}{\lVert t_i \rVert} \right\rVert^2
    $$

    $$
    \mathrm{channel} = \frac{1}{N A M} \sum_i \sum_a (z(P s)_{ia} - z(t)_{ia})^2, \quad
    z(f)_{ia} = \frac{f_{ia} - \mathrm{mean}_a}{\sigma_a}
    $$

    with s and t the features in front of the classifiers, P a 1x1 convolution where channels differ, and in
    ``norm: channel`` (NFD, Liu et al. 2022; PKD, Cao et al. 2022) mean and deviation of every channel over
    the pixels of an image. Either lies in [0, 4]: ``pixel`` is 2 - 2 cos of the two features of a pixel, and
    compares which channels are strong there; ``channel`` is 2 - 2 rho with Pearson's correlation of the two
    maps of a channel, and compares where in the image the channel is strong, whatever its mean and scale, so
    that a few large channels do not dominate. PKD takes mean and deviation over the batch. Void pixels are
    included unless ``mask_ignored``. A re-implementation of plain feature distillation, which needs long
    training.
    """

    paper = "feature distillation, FitNets (Romero et al. 2015) on normalised features (NFD, PKD: 2022)"

    @dataclass
    class Config(DistillLoss.Config):
        norm: str = option("pixel", "what is normalised: pixel or channel", choices=("pixel", "channel"))
        mask_ignored: bool = option(False, "leave void pixels out")

    @classmethod
    def reads_teacher_logits(cls, config: Config) -> bool:
        return False

    def __init__(self, config: Config, student: SegSpec, teacher: SegSpec) -> None:
        super().__init__(config, student, teacher)
        self.adapter = build_adapter("NormalizedFeature", student.feature_channels, teacher.feature_channels)

    def forward(self, inputs: LossInputs) -> Tensor:
        feature, target = tapped_maps(inputs, "feature")
        feature = self.adapter(feature)
        if self.config.norm == "pixel":
            error = (unit_vectors(feature, 1) - unit_vectors(target, 1)).square().sum(1)  # (N, h, w)
        else:
            counted = inputs.kept if self.config.mask_ignored else torch.ones_like(inputs.valid)
            student, teacher = (standardized_channels(x, counted) for x in (feature, target))
            error = (student - teacher).square().mean(1)  # (N, h, w)
        if not self.config.mask_ignored:
            return error.mean()
        return (error * inputs.kept).sum() / inputs.kept.sum().clamp(min=1)
