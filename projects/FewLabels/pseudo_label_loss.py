"""Cross-entropy with the teacher's classes on pictures that nobody labelled."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from fakd.losses import DistillLoss, option
from fakd.registry import DISTILL_LOSS_REGISTRY
from fakd.structures import LossInputs


@DISTILL_LOSS_REGISTRY.register()
class PseudoLabel(DistillLoss):
    """Cross-entropy with pseudo-labels, which `KD.PSEUDO_CONFIDENCE` makes of the teacher (Lee 2013).

        - 1 / |U| sum_{i in U} log q_iy

    over U, the pixels of unlabelled pictures where the teacher is sure enough of its class y, with q the
    softmax of the student's logits. As `tools/pseudo_label.py`, but of the very crops that are trained on.
    """

    paper = "Lee 2013 (Pseudo-Label)"
    needs_labels = True

    @dataclass
    class Config(DistillLoss.Config):
        weight: float = option(1.0, "factor of this loss in the sum", least=0)

    def forward(self, inputs: LossInputs) -> Tensor:
        logits = inputs.student.logits
        if inputs.unlabelled is None:
            return (logits * 0).sum()
        used = inputs.valid & inputs.unlabelled
        values = F.cross_entropy(logits, inputs.labels.where(used, 0), reduction="none")
        return (values * used).sum() / used.sum().clamp(min=1)
