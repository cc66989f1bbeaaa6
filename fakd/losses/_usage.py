"""What a loss reads of its inputs, found by running it on the meta device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from ..structures import LossInputs, SegOutput, SegSpec
from .base import DistillLoss

IMAGES, SIDE = 2, 64


class UsageRecorder(TorchDispatchMode):
    """Records which of the named tensors, or views of them, an operation reads, and counts FLOP.

    torch's FlopCounterMode fails on a loss that calls autograd itself.
    """

    def __init__(self, names: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._names = {_storage(x): name for name, x in names.items()}
        self.used: set[str] = set()
        self.flop = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        tensors = (x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor))
        self.used.update(self._names[_storage(x)] for x in tensors if _storage(x) in self._names)
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            self.flop += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


def _storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata


def record(loss: DistillLoss, student: SegSpec, teacher: SegSpec) -> UsageRecorder:
    """Runs a loss on the meta device forward and backward; the tensors are named as in a sentence."""
    maps, taught = _output(student), _output(teacher)
    labels = torch.zeros(IMAGES, SIDE, SIDE, dtype=torch.int64, device="meta")
    inputs = LossInputs(maps, taught.detach(), labels, labels > 0, 0.5)
    named = {"the labels": labels, "the void mask": inputs.valid}
    for who, output in (("student", maps), ("teacher", taught)):
        for f in fields(output):
            value = getattr(output, f.name)
            if f.name == "stages":
                named.update({f"the {who}'s {stage}": x for stage, x in value.items()})
            else:
                named[f"the {who}'s {f.name}"] = value
    with UsageRecorder(named) as recorder:
        loss(inputs).backward()
    return recorder


def teacher_maps(losses: Iterable[DistillLoss], student: SegSpec, teacher: SegSpec) -> set[str]:
    """The teacher's maps that some loss reads: logits, feature, weight, bias and names of stages."""
    read: set[str] = set()
    for loss in losses:
        with torch.device("meta"):
            copy = type(loss)(loss.config, student, teacher).to("meta")
        read |= record(copy, student, teacher).used
    return {name.removeprefix("the teacher's ") for name in read if name.startswith("the teacher's ")}


def _output(spec: SegSpec) -> SegOutput:
    """A network's output on the meta device."""

    def draw(*shape: int) -> Tensor:
        return torch.zeros(shape, device="meta", requires_grad=True)

    k, a = spec.num_classes, spec.feature_channels
    maps = {name: draw(IMAGES, c, SIDE, SIDE) for name, c in spec.stage_channels.items()}
    grid = (IMAGES, k, SIDE, SIDE)
    return SegOutput(draw(*grid), draw(IMAGES, a, SIDE, SIDE), draw(k, a), draw(k), draw(*grid), maps)
