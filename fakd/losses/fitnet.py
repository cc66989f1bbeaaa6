"""Feature imitation."""

from dataclasses import dataclass

from torch import Tensor

from ..layers import build_adapter
from ..registry import DISTILL_LOSS_REGISTRY
from ..structures import LossInputs, SegSpec
from ._taps import tap_channels, tapped_maps, valid_mask_for
from .base import DistillLoss, option


@DISTILL_LOSS_REGISTRY.register()
class FitNet(DistillLoss):
    r"""Mean squared difference of the features (Romero et al. 2015, in CIRKD's form).

    $$
    \frac{1}{N A M} \sum (P s - t)^2
    $$

    over the A channels of the teacher, with P a 1x1 convolution without bias. CIRKD uses it even where
    channels agree; without ``always_adapt`` it is used only where they differ. Void pixels are included
    unless ``mask_ignored``.
    """

    paper = "Romero et al. 2015 (FitNets)"

    @dataclass
    class Config(DistillLoss.Config):
        weight: float = option(10.0, "factor of this loss in the sum; CIRKD's", least=0)
        tap: str = option("feature", "map that is compared: feature, logits or a stage such as res5")
        always_adapt: bool = option(True, "use the convolution even where channels agree")
        mask_ignored: bool = option(False, "leave void pixels out")

    @classmethod
    def reads_teacher_logits(cls, config: Config) -> bool:
        return config.tap == "logits"

    def __init__(self, config: Config, student: SegSpec, teacher: SegSpec) -> None:
        super().__init__(config, student, teacher)
        own, target = (tap_channels(spec, config.tap, "KD.FitNet.TAP") for spec in (student, teacher))
        self.adapter = build_adapter("FitNet", own, target, always=config.always_adapt)

    def forward(self, inputs: LossInputs) -> Tensor:
        student, teacher = tapped_maps(inputs, self.config.tap)
        gap = (self.adapter(student) - teacher).square()
        if not self.config.mask_ignored:
            return gap.mean()
        valid = valid_mask_for(inputs, gap)
        return (gap * valid).sum() / (gap.shape[1] * valid.sum().clamp(min=1))
