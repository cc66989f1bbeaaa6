"""What every distillation loss is."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from ..structures import LossInputs, SegSpec


def option(default: Any, help: str) -> Any:
    """A field of a loss's ``Config`` with the sentence that explains it."""
    return field(default=default, metadata={"help": help})


class DistillLoss(nn.Module):
    """Base of all distillation losses: a new method is a subclass in a file of its own.

    A subclass registers itself with ``@DISTILL_LOSS_REGISTRY.register()``, nests a dataclass
    ``Config(DistillLoss.Config)`` and implements :meth:`forward`. Each field of ``Config`` becomes the key
    ``KD.<ClassName>.<FIELD>``. Trainable parts and statistics are ordinary sub-modules, parameters and
    buffers: they are trained, saved and resumed with the run and never reach the student's checkpoint.

    Args:
        config: the options.
        student: what is known of the student beforehand.
        teacher: the same of the teacher.
    """

    @dataclass
    class Config:
        weight: float = option(1.0, "factor of this loss in the sum")

    paper: str = ""

    def __init__(self, config: Config, student: SegSpec, teacher: SegSpec) -> None:
        super().__init__()
        self.config: Any = config  # of the subclass's own Config
        self._scalars: dict[str, Tensor] = {}

    def forward(self, inputs: LossInputs) -> Tensor:
        """The unweighted loss, a scalar in the dtype of the logits."""
        raise NotImplementedError

    def log_scalar(self, name: str, value: Tensor | float) -> None:
        """Keep a number for the training log; it stays on its device until the log is written."""
        self._scalars[name] = value.detach() if isinstance(value, Tensor) else torch.tensor(float(value))

    def pop_scalars(self) -> dict[str, Tensor]:
        """The latest logged numbers, which are then forgotten."""
        scalars, self._scalars = self._scalars, {}
        return scalars

    @classmethod
    def check_choice(cls, config: Config, **choices: tuple[str, ...]) -> None:
        """Raise ValueError if an option is none of its choices, naming its config key."""
        for name, allowed in choices.items():
            value = getattr(config, name)
            if value not in allowed:
                raise ValueError(
                    f"KD.{cls.__name__}.{config_key(name)} is '{value}'; choose from {', '.join(allowed)}."
                )


def config_key(field_name: str) -> str:
    """The config key of a dataclass field: ``lambda_`` is ``LAMBDA``."""
    return field_name.rstrip("_").upper()


def options_of(loss: type[DistillLoss]) -> dict[str, Any]:
    """Config keys of a loss with their defaults."""
    return {config_key(f.name): f.default for f in fields(loss.Config)}
