"""Attention transfer."""

from dataclasses import dataclass

from torch import Tensor

from ..functional.relation import mean_square, unit_vectors
from ..registry import DISTILL_LOSS_REGISTRY
from ..structures import LossInputs, SegSpec
from ._taps import tap_channels, tapped_maps, valid_mask_for
from .base import DistillLoss, option


@DISTILL_LOSS_REGISTRY.register()
class AT(DistillLoss):
    r"""Matches spatial attention maps, the mean square over channels (Zagoruyko and Komodakis 2017).

    $$
    \frac{1}{N M} \sum_n \sum_i (a^S_{ni} - a^T_{ni})^2, \quad a_n = \frac{e_n}{\lVert e_n \rVert}, \quad
    e_{ni} = \mathrm{mean}_c F_{nci}^2
    $$

    The squared difference of unit vectors is divided by M, hence the large weight. No projector is needed.
    Void pixels are included unless ``mask_ignored``.
    """

    paper = "Zagoruyko and Komodakis 2017 (AT)"

    @dataclass
    class Config(DistillLoss.Config):
        weight: float = option(10000.0, "factor of this loss in the sum; CIRKD's", least=0)
        tap: str = option("feature", "map that is compared: feature, logits or a stage such as res5")
        mask_ignored: bool = option(False, "leave void pixels out")

    @classmethod
    def reads_teacher_logits(cls, config: Config) -> bool:
        return config.tap == "logits"

    def __init__(self, config: Config, student: SegSpec, teacher: SegSpec) -> None:
        super().__init__(config, student, teacher)
        for spec in (student, teacher):
            tap_channels(spec, config.tap, "KD.AT.TAP")

    def forward(self, inputs: LossInputs) -> Tensor:
        maps = [mean_square(x) for x in tapped_maps(inputs, self.config.tap)]
        count: int | Tensor = maps[0].numel()
        if self.config.mask_ignored:
            valid = valid_mask_for(inputs, maps[0])
            maps = [x * valid for x in maps]
            count = valid.sum().clamp(min=1)
        student, teacher = (unit_vectors(x.flatten(1), 1) for x in maps)
        return (student - teacher).square().sum() / count
