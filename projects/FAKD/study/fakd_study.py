"""FAKD on CWD with every choice that docs/fakd_study.md varies; what proves useful moves into the library."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fakd.functional.augmentation import logit_variance, margin_variance
from fakd.functional.divergence import Offset, softmax_kl
from fakd.functional.resize import aligned_logits
from fakd.losses import option
from fakd.losses._fakd import with_void_column
from fakd.losses.fakd_channel import FAKDChannel
from fakd.registry import DISTILL_LOSS_REGISTRY
from fakd.statistics import ClassCovariance
from fakd.structures import LossInputs, SegSpec


@DISTILL_LOSS_REGISTRY.register()
class FAKDStudy(FAKDChannel):
    """FAKDChannel, with other sources and sizes of the augmentation.

    With its defaults it equals FAKDChannel. Logs the mean offset of every class's own logit on its pixels,
    ``own/<class>``, and of the other logits there, ``other/<class>``.
    """

    @dataclass
    class Config(FAKDChannel.Config):
        lambda_unit: str = option(
            "variance",
            "what lambda multiplies: half the variance, or the offsets scaled to a mean of 1",
            choices=("variance", "offset"),
        )
        offset: str = option(
            "variance",
            "variance of the logit q[c, y]; margin: of its lead over class y; relative: q[c, y] - q[y, y]",
            choices=("variance", "margin", "relative"),
        )
        space: str = option(
            "student", "whose features and classifier give the variances", choices=("student", "teacher")
        )
        part: str = option(
            "whole",
            "the covariance of a class over all pixels, or within each image only",
            choices=("whole", "within"),
        )
        over: str = option(
            "run", "all pixels so far, or the last batch with the class", choices=("run", "batch")
        )
        shrinkage: float = option(
            0.0, "pixels of a class at which its covariance is half diagonal; 0 never shrinks", least=0
        )
        gradient: str = option(
            "none",
            "of the augmentation into the classifier; direction: with the norm of each class's weight fixed",
            choices=("none", "all", "direction"),
        )

    def __init__(self, config: Config, student: SegSpec, teacher: SegSpec) -> None:
        super().__init__(config, student, teacher)
        if config.space == "teacher":
            self.statistics = ClassCovariance(teacher.num_classes, teacher.feature_channels)

    def forward(self, inputs: LossInputs) -> Tensor:
        source = inputs.student if self.config.space == "student" else inputs.teacher
        if self.training:
            self._update(source.feature, inputs)
        weight, sigma = self._weight(source.weight), self._shrunk()
        variance = logit_variance(weight, sigma)  # (K, K)   q[c, y]
        table = {
            "variance": lambda: variance,
            "margin": lambda: margin_variance(weight, sigma).T,
            "relative": lambda: variance - variance.diagonal(),
        }[self.config.offset]()
        if self.config.lambda_unit == "offset":
            seen = (self.statistics.count > 0).to(variance.dtype)  # (K,)   classes y
            mean = (variance.detach() @ seen) / seen.sum().clamp(min=1)  # (K,)   over y
            table = 2 * self.config.tau**2 * table / mean.mean().clamp(min=torch.finfo(mean.dtype).tiny)
        v = self.offsets(table, inputs.progress)
        self._log(v)
        labels, valid = self.labels_and_mask(inputs)
        offset = Offset(with_void_column(v), labels, self.config.form)
        student, teacher = aligned_logits(inputs.student.logits, inputs.teacher.logits)
        total = softmax_kl(student, teacher, self.config.tau, "pixels", valid, offset)
        return self.config.tau**2 * total / (student.shape[0] * student.shape[1])

    def _update(self, feature: Tensor, inputs: LossInputs) -> None:
        if feature.shape[-2:] != inputs.labels.shape[-2:]:
            raise ValueError(
                f"KD.FAKDStudy.SPACE {self.config.space}: its map of {tuple(feature.shape[-2:])} is not the "
                f"student's of {tuple(inputs.labels.shape[-2:])}; give both networks one OUTPUT_STRIDE."
            )
        if self.config.over == "batch":
            self.statistics.count.zero_()
        if self.config.part == "within":
            feature = _less_image_means(
                feature.detach(), inputs.labels, inputs.valid, len(self.statistics.count)
            )
        self.statistics.update(feature, inputs.labels, inputs.valid)

    def _weight(self, weight: Tensor) -> Tensor:
        if self.config.gradient == "none":
            return weight.detach()
        if self.config.gradient == "direction":
            return F.normalize(weight) * weight.detach().norm(dim=1, keepdim=True)
        return weight

    def _shrunk(self) -> Tensor:
        sigma = self.statistics.covariance
        if not self.config.shrinkage:
            return sigma
        share = self.config.shrinkage / (self.config.shrinkage + self.statistics.count)  # (K,)
        return sigma.lerp(torch.diag_embed(sigma.diagonal(dim1=1, dim2=2)), share.to(sigma)[:, None, None])

    def _log(self, v: Tensor) -> None:
        own = v.diagonal()  # (K,)   v[y, y]
        for y, (mine, column) in enumerate(zip(own, v.sum(0), strict=True)):
            self.log_scalar(f"own/{y}", mine)
            self.log_scalar(f"other/{y}", (column - mine) / (len(v) - 1))


def _less_image_means(feature: Tensor, labels: Tensor, valid: Tensor, num_classes: int) -> Tensor:
    """Features (N, A, h, w) less the mean of their class in their image."""
    n, a = feature.shape[:2]
    x = feature.movedim(1, -1).reshape(-1, a)  # (P, A)
    image = torch.arange(n, device=labels.device)[:, None, None]
    group = torch.where(valid, labels + num_classes * image, n * num_classes).reshape(-1)  # (P,)
    sums = x.new_zeros(n * num_classes + 1, a).index_add_(0, group, x)
    counts = x.new_zeros(n * num_classes + 1).index_add_(0, group, torch.ones_like(x[:, 0]))
    means = sums / counts.clamp(min=1)[:, None]
    return (x - means[group]).view(n, *feature.shape[2:], a).movedim(-1, 1)
