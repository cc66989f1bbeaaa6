"""Cases, goals and the text that states both."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fakd.engine.provenance import cpu_name

from .harness import Cost, Floor, Loss, Step, check, forward_backward, loss_and_gradients, measure, settle

# A timed goal fails only below this share of itself: a median moves by as much on a busy machine.
TOLERANCE = 0.8


@dataclass(frozen=True)
class Bar:
    """One goal and what was measured for it; ``timed`` ones have a tolerance, bytes and counts have none.

    A number is judged as it is printed, to three digits: a few bytes of scalars do not decide.
    """

    number: str
    what: str
    value: float
    goal: float
    at_most: bool
    timed: bool

    @property
    def verdict(self) -> str:
        value = float(f"{self.value:.3g}")
        share = self.goal / value if self.at_most else value / self.goal
        if share >= 1:
            return "met"
        return "within noise" if self.timed and share >= TOLERANCE else "MISSED"


class Report:
    """Runs cases and collects what the text says.

    Args:
        rounds: how often every variant is timed.
        tiny: shrink every shape, to see that everything runs.
    """

    def __init__(self, rounds: int = 5, tiny: bool = False) -> None:
        self.rounds = rounds
        self.tiny = tiny
        self.rows: list[str] = []
        self.bars: list[Bar] = []

    def shape(self, *sizes: int) -> tuple[int, ...]:
        return tuple(min(size, 9) for size in sizes) if self.tiny else sizes

    def compare(
        self,
        case: str,
        variants: Mapping[str, Loss],
        leaves: Sequence[Tensor],
        floor: Floor,
        other: Mapping[str, Loss] | None = None,
    ) -> dict[str, Cost]:
        """Hold all variants to the first in value and gradients, then measure forward plus backward.

        Args:
            case: what is computed, with its shape.
            variants: functions of the leaves that compute the same.
            leaves: tensors that get a gradient.
            floor: of the case.
            other: functions of the leaves that compute something else, measured beside them.
        """
        wanted = None
        for name, loss in variants.items():
            got = loss_and_gradients(loss, leaves)
            wanted = wanted or got
            check(f"{case}, {name}", got, wanted)
        losses = {**variants, **(other or {})}
        return self.measure(case, {n: forward_backward(loss, leaves) for n, loss in losses.items()}, floor)

    def measure(self, case: str, steps: Mapping[str, Step], floor: Floor | None = None) -> dict[str, Cost]:
        """Measure steps that are known to be right, and keep a row of each."""
        costs = measure(steps, 1 if self.tiny else self.rounds, floor, 0 if self.tiny else 30)
        for name, cost in costs.items():
            floors = f"{cost.floors:.1f}" if floor else "-"
            peak, largest = cost.peak / 1e6, cost.largest / 1e6
            self.rows.append(f"| {case} | {name} | {cost.ms:.2f} | {floors} | {peak:.1f} | {largest:.1f} |")
        return costs

    def at_least(self, number: str, what: str, value: float, goal: float, timed: bool = True) -> None:
        self.bars.append(Bar(number, what, value, goal, False, timed))

    def at_most(self, number: str, what: str, value: float, goal: float, timed: bool = True) -> None:
        self.bars.append(Bar(number, what, value, goal, True, timed))

    def text(self) -> str:
        """Markdown: the machine, every goal, every cost."""
        goals = [
            f"| {bar.number} | {bar.what} | {'<=' if bar.at_most else '>='} {bar.goal:g} "
            f"| {bar.value:.3g} | {bar.verdict} |"
            for bar in self.bars
        ]
        return "\n".join(
            [
                f"{machine()}; one thread, processor time, median of {self.rounds} rounds.",
                "",
                "| bar | what | goal | measured | |",
                "|---|---|---:|---:|---|",
                *goals,
                "",
                "| case | variant | ms | times the floor | peak MB | largest MB |",
                "|---|---|---:|---:|---:|---:|",
                *self.rows,
            ]
        )


def machine() -> str:
    """The processor and PyTorch."""
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{cpu_name()}, {capability}, PyTorch {torch.__version__}"


def main(fill: Callable[[Report], None], arguments: Sequence[str] | None = None) -> int:
    """The command line shared by the benchmarks: run, print, and 1 if a bar is missed.

    Args:
        fill: runs the cases of a report.
        arguments: of the command line, sys.argv if None.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5, help="how often every variant is timed")
    parser.add_argument("--tiny", action="store_true", help="shrink every shape, to see that everything runs")
    options = parser.parse_args(arguments)
    settle()
    report = Report(options.rounds, options.tiny)
    fill(report)
    print(report.text())
    return int(any(bar.verdict == "MISSED" for bar in report.bars) and not report.tiny)
