"""Double similarity distillation."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..functional.relation import mean_square, unit_vectors
from ..functional.resize import check_same_classes, resize_like
from ..registry import DISTILL_LOSS_REGISTRY
from ..structures import LossInputs, SegSpec
from ._taps import tap_channels, tapped_maps
from .base import DistillLoss, option

# Differences of unit vectors in float32 that are shorter than this are rounding.
EQUAL = 1e-6


@DISTILL_LOSS_REGISTRY.register()
class DSD(DistillLoss):
    r"""Pixel-wise and category-wise similarity (Feng et al. 2021, in CIRKD's form).

    $$
    \mathrm{PSD} = \mathrm{mean}_{(m, n)}\ \mathrm{mean}_i (d^S_{mni} - d^T_{mni})^2, \quad
    d_{mn} = \frac{a_n - a_m}{\lVert a_n - a_m \rVert}
    $$

    $$
    \mathrm{CSD} = \frac{1}{N K^2} \sum (R^S R^{S\top} - R^T R^{T\top})^2, \quad
    w_{\mathrm{psd}} \mathrm{PSD} + w_{\mathrm{csd}} \mathrm{CSD}
    $$

    with w ``psd_weight`` and ``csd_weight``. a_m is the attention of map m: the mean over channels of its
    squares as a unit vector over the pixels. The maps are a backbone stage, the feature and the logits,
    all on the grid of the feature (CIRKD takes the auxiliary logits for the first, or twice the same map
    where there are none). Row c of R is the softmax over pixels of the channel c of the logits,
    average-pooled by 2, over tau. Void pixels are included.
    """

    paper = "Feng et al. 2021 (DSD)"

    @dataclass
    class Config(DistillLoss.Config):
        psd_weight: float = option(1000.0, "factor of the pixel-wise term; CIRKD's; 0 leaves it out", least=0)
        csd_weight: float = option(
            10.0, "factor of the category-wise term; CIRKD's; 0 leaves it out", least=0
        )
        tap: str = option("res4", "first of the three maps, a stage of both backbones")
        tau: float = option(4.0, "temperature of the category-wise term", above=0)

    def __init__(self, config: Config, student: SegSpec, teacher: SegSpec) -> None:
        super().__init__(config, student, teacher)
        for spec in (student, teacher):
            tap_channels(spec, config.tap, "KD.DSD.TAP")
        if config.tap in ("feature", "logits"):
            raise ValueError(f"KD.DSD.TAP is '{config.tap}', one of the other two maps; choose a stage.")

    def forward(self, inputs: LossInputs) -> Tensor:
        total = inputs.student.logits.new_zeros(())
        if self.config.psd_weight:
            pairs = [tapped_maps(inputs, tap) for tap in (self.config.tap, "feature", "logits")]
            student, teacher = ([pair[i] for pair in pairs] for i in (0, 1))
            psd = pixel_similarity(student, teacher, like=inputs.student.feature)
            self.log_scalar("psd", psd)
            total = total + self.config.psd_weight * psd
        if self.config.csd_weight:
            csd = category_similarity(*tapped_maps(inputs, "logits"), self.config.tau)
            self.log_scalar("csd", csd)
            total = total + self.config.csd_weight * csd
        return total


def pixel_similarity(student: Sequence[Tensor], teacher: Sequence[Tensor], like: Tensor) -> Tensor:
    """PSD of equally many maps (N, *, *, *) of each network on the grid of ``like``.

    Two maps with the same attention have no direction between them: that pair counts as zero.
    """
    attentions = [
        [unit_vectors(resize_like(mean_square(x), like).flatten(1), 1) for x in maps]
        for maps in (student, teacher)
    ]
    pairs = list(combinations(range(len(student)), 2))
    total = like.new_zeros(())
    for m, n in pairs:
        s, t = (unit_vectors(a[n] - a[m], 1, short=EQUAL) for a in attentions)
        total = total + (s - t).square().mean()
    return total / len(pairs)


def category_similarity(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """CSD of logits (N, K, h, w)."""
    check_same_classes(student, teacher)
    rows = [
        torch.softmax(F.avg_pool2d(x, 2, 2, ceil_mode=True).flatten(2) / tau, 2) for x in (student, teacher)
    ]
    s, t = (r @ r.transpose(1, 2) for r in rows)
    return (s - t).square().mean()
