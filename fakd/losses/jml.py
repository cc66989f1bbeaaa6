"""Jaccard metric loss with soft labels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..functional.resize import aligned_logits
from ..registry import DISTILL_LOSS_REGISTRY
from ..structures import LossInputs, SegSpec
from ._fakd import AUGMENT, build_augmentation
from .base import DistillLoss, option


@DISTILL_LOSS_REGISTRY.register()
class JML(DistillLoss):
    r"""Soft Jaccard loss against a mixture of label and teacher (Wang et al. 2023, JML_1).

    $$
    1 - \mathrm{mean}_c \frac{\mathrm{TP}_c + \epsilon}
    {\mathrm{TP}_c + \mathrm{FP}_c + \mathrm{FN}_c + \epsilon},
    \quad y = a\ \mathrm{onehot}(\mathrm{label}) + (1 - a) p
    $$

    $$
    \mathrm{TP} = \frac{|q|_1 + |y|_1 - |q - y|_1}{2}, \quad \mathrm{FP} = |q|_1 - \mathrm{TP}, \quad
    \mathrm{FN} = |y|_1 - \mathrm{TP}
    $$

    with p and q the softmaxes over classes of teacher and student over T, a ``label_share`` and the norms
    sums over the labelled pixels of this process's batch, per class. Unlike the product form of soft
    Jaccard it is smallest at q = y for soft y as well. With a = 1 it is the soft Jaccard loss of the labels,
    and the teacher is ignored. ``classes: present`` averages over the classes of the batch's labels only.

    The authors compute it on logits up-sampled to the label. This is on the classifier's grid, which has
    fewer pixels, so that the same ``smooth`` weighs more.
    """

    paper = "Wang et al. 2023 (JML)"
    needs_labels = True

    @dataclass
    class Config(DistillLoss.Config):
        weight: float = option(
            3.0, "factor of this loss in the sum; 3 is 0.75 beside 0.25 cross-entropy", least=0
        )
        tau: float = option(1.0, "temperature T", above=0)
        label_share: float = option(
            0.5, "a, the label's share of the target; 1 ignores the teacher", least=0, most=1
        )
        smooth: float = option(1.0, "e, in pixels", above=0)
        classes: str = option("all", "classes of the mean", choices=("all", "present"))
        augment: float = option(0.0, AUGMENT, least=0)

    def __init__(self, config: Config, student: SegSpec, teacher: SegSpec) -> None:
        super().__init__(config, student, teacher)
        self.augmentation = build_augmentation(config.augment, student)

    def forward(self, inputs: LossInputs) -> Tensor:
        if self.augmentation is not None:
            inputs = self.augmentation(inputs, self.config.tau)
        logits = aligned_logits(inputs.student.logits, inputs.teacher.logits)
        q, p = ((x / self.config.tau).softmax(1) for x in logits)  # (N, K, M)
        valid = inputs.valid.flatten(1)[:, None]  # (N, 1, M)
        label = inputs.labels.flatten(1)[:, None].where(valid, 0)  # (N, 1, M)
        onehot = torch.zeros_like(p).scatter_(1, label, 1.0) * valid
        y = self.config.label_share * onehot + (1 - self.config.label_share) * p * valid
        q = q * valid
        predicted, wanted = q.sum((0, 2)), y.sum((0, 2))  # (K,)   |q|_1, |y|_1
        hits = (predicted + wanted - (q - y).abs().sum((0, 2))) / 2  # (K,)   TP
        jaccard = (hits + self.config.smooth) / (predicted + wanted - hits + self.config.smooth)
        counted = torch.ones_like(jaccard)
        if self.config.classes == "present":
            counted = (onehot.sum((0, 2)) > 0).to(jaccard.dtype)
        return ((1 - jaccard) * counted).sum() / counted.sum().clamp(min=1)
