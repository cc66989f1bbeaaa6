"""Augmentation-free dense contrastive distillation."""

from dataclasses import dataclass
from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor

from ..functional.contrast import LEAST_TAU
from ..functional.divergence import MASKED
from ..registry import DISTILL_LOSS_REGISTRY
from ..structures import LossInputs, SegSpec
from .base import option
from .mgd import MGD


@DISTILL_LOSS_REGISTRY.register()
class AfDCD(MGD):
    r"""Contrasts groups of channels within patches of a restored feature (Fan et al. 2023, Af-DCD).

    $$
    \mathrm{mean}_a \left[ -\log
    \frac{\exp(-d(z_a, t_a) / \tau)}{\sum_{b \in \lbrace a \rbrace \cup B(a)} \exp(-d(z_a, t_b) / \tau)}
    \right] + r\ \mathrm{MGD}
    $$

    with z the feature that MGD's generator restores from the student's masked one, and t the teacher's, both
    max-pooled by ``pool``, cut into patches of ``patch`` x ``patch`` pixels, and each pixel into ``groups``
    of neighbouring channels. a = (pixel, group); B(a), the negatives, are those of its patch in other groups
    (``groups``, as the released code masks them) or all others (``all``). d is the mean absolute difference
    of two groups, so that tau does not depend on their width. r is ``restoration``, MGD's weight.

    The text and the weights of the paper were not at hand: what is described here is what was made of public
    descriptions. ``groups`` is reduced to what divides the teacher's channels. Maps are padded to whole
    patches, and what is padded takes no part. Void pixels take part unless ``mask_ignored``.

    Memory: the backward pass of the distances (``cdist`` with p = 1) makes, on a GPU, an array of every
    difference that is summed: N M / ``pool``^2 x ``patch``^2 ``groups`` A numbers. For 16 images of 64 x 64
    and 512 channels these are 16 x 256 x 16 x 16 x 512 x 4 bytes = 2.1 GB in float32, and 16 times as many
    without pooling.
    """

    paper = "Fan et al. 2023 (Af-DCD)"

    @dataclass
    class Config(MGD.Config):
        weight: float = option(1.0, "factor of this loss in the sum", least=0)
        restoration: float = option(2e-5, "factor of MGD's own term beside the contrast", least=0)
        tau: float = option(0.07, "temperature of the distances", least=LEAST_TAU)
        pool: int = option(4, "side of the squares that are max-pooled first; 1 is none", least=1)
        patch: int = option(4, "side of a patch, in pooled pixels", least=1)
        groups: int = option(16, "groups that channels are split into", least=1)
        negatives: str = option(
            "groups", "of an anchor: other groups of its patch, or all others", choices=("groups", "all")
        )

    def __init__(self, config: Config, student: SegSpec, teacher: SegSpec) -> None:
        super().__init__(config, student, teacher)
        self.groups = gcd(config.groups, teacher.feature_channels)
        if self.groups == 1 and (config.negatives == "groups" or config.patch == 1):
            raise ValueError(
                f"KD.AfDCD.GROUPS {config.groups} and the teacher's {teacher.feature_channels} channels "
                "share no divisor, so that nothing is contrasted: choose a divisor of the channels above 1, "
                "or KD.AfDCD.NEGATIVES all with a PATCH above 1."
            )

    def forward(self, inputs: LossInputs) -> Tensor:
        error, restored, target, counted = self.restore(inputs)
        contrast = self.contrast(restored, target, counted)
        self.log_scalar("contrast", contrast)
        return contrast + self.config.restoration * error

    def contrast(self, restored: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        """The mean over anchors of two maps (N, A, h, w), of the pixels of a mask (N, 1, h, w)."""
        own, other = (self.patches(x.masked_fill(~counted, -torch.inf)) for x in (restored, target))
        real = own[..., 0] > -torch.inf  # (P, V)   neither void nor padded
        own, other = (x.where(real[..., None], 0) for x in (own, other))  # (P, V, A / G)
        scores = -torch.cdist(own, other, p=1) / (own.shape[2] * self.config.tau)  # (P, V, V)
        group = torch.arange(own.shape[1], device=own.device) % self.groups  # (V,)
        compared = real[:, None].expand_as(scores)
        if self.config.negatives == "groups":
            itself = torch.eye(len(group), dtype=torch.bool, device=own.device)
            compared = compared & ((group[:, None] != group) | itself)
        log_share = scores.masked_fill(~compared, MASKED).log_softmax(2).diagonal(dim1=1, dim2=2)  # (P, V)
        return -(log_share * real).sum() / real.sum().clamp(min=1)

    def patches(self, feature: Tensor) -> Tensor:
        """(N, A, h, w) to (N * patches, pixels * G, A / G), minus infinity where there is no map."""
        if self.config.pool > 1:
            feature = F.max_pool2d(feature, self.config.pool, self.config.pool, ceil_mode=True)
        side = self.config.patch
        missing = (0, -feature.shape[3] % side, 0, -feature.shape[2] % side)
        feature = F.pad(feature, missing, value=-torch.inf)
        n, a, h, w = feature.shape
        cut = feature.view(n, self.groups, a // self.groups, h // side, side, w // side, side)
        # n, patch down, patch right, pixel down, pixel right, group, channel
        return cut.permute(0, 3, 5, 4, 6, 1, 2).reshape(-1, side * side * self.groups, a // self.groups)
