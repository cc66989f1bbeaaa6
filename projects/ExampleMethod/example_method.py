"""A distillation loss outside the library: copy this file, rename the class, write your formula."""

from dataclasses import dataclass

from torch import Tensor, nn

from fakd.functional.relation import unit_vectors
from fakd.losses import DistillLoss, option, tapped_maps
from fakd.registry import DISTILL_LOSS_REGISTRY
from fakd.structures import LossInputs, SegSpec


@DISTILL_LOSS_REGISTRY.register()
class CosineFeature(DistillLoss):
    """One minus the cosine between the projected student feature and the teacher's, over labelled pixels.

        mean_i [ 1 - cos(P s_i, t_i) ]

    P is a 1x1 convolution, there only if the two networks differ in channels. It is trained with the student
    and saved with the run, and is no part of the student's checkpoint.
    """

    paper = "an example"

    @dataclass
    class Config(DistillLoss.Config):
        margin: float = option(0.0, "pixels whose cosine is above 1 - margin cost nothing", least=0)

    def __init__(self, config: Config, student: SegSpec, teacher: SegSpec) -> None:
        super().__init__(config, student, teacher)
        self.projector = nn.Identity()
        if student.feature_channels != teacher.feature_channels:
            self.projector = nn.Conv2d(student.feature_channels, teacher.feature_channels, 1, bias=False)

    def forward(self, inputs: LossInputs) -> Tensor:
        feature, target = tapped_maps(inputs, "feature")
        cosine = (unit_vectors(self.projector(feature), 1) * unit_vectors(target, 1)).sum(1)  # (N, h, w)
        distance = 1 - cosine
        distance = (distance - self.config.margin).clamp(min=0) * inputs.kept
        return distance.sum() / inputs.kept.sum().clamp(min=1)
