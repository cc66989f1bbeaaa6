"""Channel-wise distillation."""

from dataclasses import dataclass

from torch import Tensor

from ..functional.divergence import channel_kl
from ..layers import build_adapter
from ..registry import DISTILL_LOSS_REGISTRY
from ..structures import LossInputs, SegSpec
from ._taps import STANDARDIZE, class_logits, tapped_maps
from .base import DistillLoss, option


@DISTILL_LOSS_REGISTRY.register()
class CWD(DistillLoss):
    r"""KL divergence over the pixels of every channel (Shu et al. 2021; FAKD's Eq. 2).

    $$
    \frac{\tau^2}{N C} \sum_n \sum_c \sum_i P_{nci} (\log P_{nci} - \log Q_{nci})
    $$

    with P and Q the softmaxes over the pixels of image n of channel c over tau. Each image has its own. The
    channels are those of the logits, of the feature in front of the classifier, or both with
    ``feature_factor`` between them. Where the widths of the features differ, a 1x1
    convolution projects the student's to the teacher's, and C counts its outputs. CIRKD divides by its inputs
    (``divide_by: student``). Void pixels are included unless ``mask_ignored``. ``standardize`` applies
    to the logits only, see ``PD``.
    """

    paper = "Shu et al. 2021; FAKD Eq. 2"

    @dataclass
    class Config(DistillLoss.Config):
        weight: float = option(3.0, "factor of this loss in the sum; the authors' for tau 4", least=0)
        tau: float = option(4.0, "temperature", above=0)
        source: str = option(
            "logits", "maps that are compared: logits, feature or both", choices=("logits", "feature", "both")
        )
        feature_factor: float = option(
            1.0, "factor of the feature's term, relative to that of the logits", least=0
        )
        adapter_norm: bool = option(False, "batch norm and ReLU after the adapter, as in the authors' code")
        divide_by: str = option(
            "projected",
            "C of the feature's term: projected or, as in CIRKD, student",
            choices=("projected", "student"),
        )
        mask_ignored: bool = option(False, "leave void pixels out of both softmaxes")
        standardize: bool = option(False, STANDARDIZE)

    @classmethod
    def reads_teacher_logits(cls, config: Config) -> bool:
        return config.source != "feature"

    def __init__(self, config: Config, student: SegSpec, teacher: SegSpec) -> None:
        super().__init__(config, student, teacher)
        if config.standardize and config.source == "feature":
            raise ValueError(
                "KD.CWD.STANDARDIZE is of the logits, which KD.CWD.SOURCE 'feature' leaves out: set SOURCE "
                "to 'logits' or 'both', or STANDARDIZE to False."
            )
        if config.source != "logits":
            channels = student.feature_channels, teacher.feature_channels
            self.adapter = build_adapter("CWD", *channels, norm=config.adapter_norm)

    def forward(self, inputs: LossInputs) -> Tensor:
        valid = inputs.kept.flatten(1) if self.config.mask_ignored else None
        total = inputs.student.logits.new_zeros(())
        if self.config.source != "feature":
            student, teacher = class_logits(inputs, self.config.standardize)
            total = total + channel_kl(student, teacher, self.config.tau, valid)
        if self.config.source != "logits":
            total = total + self.config.feature_factor * self.feature_term(inputs, valid)
        return total

    def feature_term(self, inputs: LossInputs, valid: Tensor | None) -> Tensor:
        """CWD of the features, the student's after its adapter."""
        student, teacher = tapped_maps(inputs, "feature")
        value = channel_kl(self.adapter(student).flatten(2), teacher.flatten(2), self.config.tau, valid)
        if self.config.divide_by == "student":
            value = value * (teacher.shape[1] / student.shape[1])
        return value
