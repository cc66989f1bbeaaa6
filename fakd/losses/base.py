"""Base class of the distillation losses."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from ..ranges import Range, range_of
from ..structures import LossInputs, SegSpec


def option(default: Any, help: str, **limits: Any) -> Any:
    """A field of a loss's ``Config``.

    Args:
        default: its value unless another is set.
        help: the sentence that explains it.
        limits: the values it may have, as in :class:`fakd.ranges.Range`: ``above=0``, ``choices=("a", "b")``.
    """
    return field(default=default, metadata={"help": help, "range": range_of(default, **limits)})


class DistillLoss(nn.Module):
    """Base of all distillation losses: a new method is a subclass in a file of its own.

    A subclass registers itself with ``@DISTILL_LOSS_REGISTRY.register()``, nests a dataclass
    ``Config(DistillLoss.Config)`` and implements :meth:`forward`. Each field of ``Config`` becomes the key
    ``KD.<ClassName>.<FIELD>``. Trainable parts and statistics are ordinary sub-modules, parameters and
    buffers: they are trained, saved and resumed with the run and never reach the student's checkpoint. A loss
    that is nothing without labels says so by ``needs_labels = True``, and one that
    compares features alone by :meth:`reads_teacher_logits`.

    Args:
        config: the options.
        student: what is known of the student before it runs.
        teacher: the same of the teacher.
    """

    @dataclass
    class Config:
        """Options of every loss."""

        weight: float = option(1.0, "factor of this loss in the sum", least=0)

    paper: str = ""
    needs_labels: bool = False  # without a label it teaches nothing, or nothing of its own

    def __init__(self, config: Config, student: SegSpec, teacher: SegSpec) -> None:
        super().__init__()
        self.config: Any = config  # of the subclass's own Config
        for f, allowed in zip(fields(config), ranges_of(type(self)).values(), strict=True):
            allowed.check(f"KD.{type(self).__name__}.{config_key(f.name)}", getattr(config, f.name))
        self._scalars: dict[str, Tensor] = {}

    @classmethod
    def reads_teacher_logits(cls, config: Any) -> bool:
        """Whether the loss with this ``Config`` needs them; a teacher without classes has none."""
        return True

    def forward(self, inputs: LossInputs) -> Tensor:
        """The unweighted loss, a scalar in the dtype of the logits."""
        raise NotImplementedError

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError if the student's logits (N, K, height, width) are too small for this loss."""

    def log_scalar(self, name: str, value: Tensor | float) -> None:
        """Keep a number for the training log; it stays on its device until the log is written."""
        self._scalars[name] = value.detach() if isinstance(value, Tensor) else torch.tensor(float(value))

    def pop_scalars(self) -> dict[str, Tensor]:
        """The latest logged numbers, which are then forgotten."""
        scalars, self._scalars = self._scalars, {}
        return scalars


def config_key(field_name: str) -> str:
    """The config key of a dataclass field: ``lambda_`` is ``LAMBDA``."""
    return field_name.rstrip("_").upper()


def options_of(loss: type[DistillLoss]) -> dict[str, Any]:
    """Config keys of a loss with their defaults."""
    return {config_key(f.name): f.default for f in fields(loss.Config)}


def ranges_of(loss: type[DistillLoss]) -> dict[str, Range]:
    """The values that the config keys of a loss may have."""
    return {config_key(f.name): f.metadata.get("range", range_of(f.default)) for f in fields(loss.Config)}
