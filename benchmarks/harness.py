"""Measuring ratios: everything runs in one process and one thread, and the variants take turns.

Only ratios are meant to travel between machines. A time is the median of several rounds; in each round
every variant runs once, so what else the machine does falls on all of them. It is processor time of this
one thread, which waiting for a busy machine does not lengthen. Peak memory is the running sum of the
allocations that the profiler reports, above what existed before; it repeats to the byte.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fakd.engine.step_cost import allocations

# What two float32 forms may differ by, and a float32 form from the formula in float64.
MAX_ERROR = 1e-5
# The rates behind a floor: copying 64 MB, and a product of two matrices that fit in the cache.
COPIED = 1 << 24
PRODUCT = 768

Step = Callable[[], object]
Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class Cost:
    """What one call costs.

    Attributes:
        ms: median processor time.
        floors: that time over the time of the floor, nan without a floor.
        peak: bytes alive at most, above those alive before.
        largest: bytes of the largest allocation.
    """

    ms: float
    floors: float
    peak: int
    largest: int


@dataclass(frozen=True)
class Floor:
    """What no implementation can avoid.

    Attributes:
        bytes: inputs read once and results written once.
        flops: of the matrix products.
    """

    bytes: float
    flops: float = 0.0


def settle() -> None:
    """One thread and a fixed seed, as every measurement here assumes."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


def measure(
    steps: Mapping[str, Step], rounds: int, floor: Floor | None = None, least_ms: float = 30.0
) -> dict[str, Cost]:
    """Cost of every step.

    Args:
        steps: by name; a call is one forward and backward, one update or one training step.
        rounds: how often every step is timed.
        floor: of all steps; its time is that of copies and products timed in the same rounds.
        least_ms: a step shorter than this is repeated until it is that long.
    """
    source, target = torch.rand(COPIED), torch.empty(COPIED)
    square, product = torch.rand(PRODUCT, PRODUCT), torch.empty(PRODUCT, PRODUCT)
    timed = {
        **steps,
        "copy": lambda: target.copy_(source),
        "product": lambda: torch.mm(square, square, out=product),
    }
    repeats = {}
    for name, step in timed.items():
        step()
        repeats[name] = max(1, round(least_ms / max(milliseconds(step), 1e-3)))
    times: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds):
        for name, step in timed.items():
            times[name].append(milliseconds(step, repeats[name]))
    ms = {name: statistics.median(values) for name, values in times.items()}
    least = math.nan
    if floor is not None:
        least = max(
            floor.bytes / (8 * COPIED) * ms["copy"],  # four bytes read and four written per number
            floor.flops / (2 * PRODUCT**3) * ms["product"],
        )
    return {name: Cost(ms[name], ms[name] / least, *allocations(step)) for name, step in steps.items()}


def milliseconds(step: Step, repeats: int = 1) -> float:
    """Processor time of one call."""
    start = time.process_time_ns()
    for _ in range(repeats):
        step()
    return (time.process_time_ns() - start) / repeats / 1e6


def forward_backward(loss: Loss, leaves: Sequence[Tensor]) -> Step:
    """A step that computes a loss of ``leaves`` and their gradients, which are freed at its end."""
    own = [x.detach().clone().requires_grad_() for x in leaves]

    def step() -> None:
        loss(*own).backward()
        for x in own:
            x.grad = None

    return step


def loss_and_gradients(loss: Loss, leaves: Sequence[Tensor]) -> list[Tensor]:
    """[value, gradient of each leaf]."""
    own = [x.detach().clone().requires_grad_() for x in leaves]
    value = loss(*own)
    value.backward()
    return [value.detach(), *(x.grad for x in own if x.grad is not None)]


def check(what: str, got: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    """The gate in front of every measurement.

    Raises:
        AssertionError: a tensor is off by more than MAX_ERROR of its largest entry.
    """
    for a, b in zip(got, wanted, strict=True):
        error = ((a.double() - b.double()).abs().max() / b.double().abs().max().clamp_min(1e-30)).item()
        if not error <= MAX_ERROR:
            raise AssertionError(f"{what}: relative error {error:.1e}, allowed is {MAX_ERROR:.0e}")
