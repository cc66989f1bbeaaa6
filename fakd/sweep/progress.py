"""The live table of a sweep, from the lines its runs write."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from .events import lines_file, read_lines
from .plan import Trial

_ENDS = {"result": "done", "failed": "failed", "out_of_memory": "out of memory", "stopped": "stopped early"}


class Progress:
    """Prints a row per trial: state, iteration, mIoU, time left; and the time left of the whole sweep."""

    def __init__(self, trials: Sequence[Trial], output: Path):
        self._output = output
        self.show_of(trials)
        # On a terminal the table is drawn over itself; in a log now and then is enough.
        self._period = 2.0 if sys.stdout.isatty() else 60.0
        self._next, self._height = 0.0, 0

    def show_of(self, trials: Sequence[Trial]) -> None:
        """Takes these trials from now on."""
        self._trials = list(trials)
        self._files = [lines_file(self._output, trial.folder) for trial in trials]
        self._lengths = [trial.config().SOLVER.MAX_ITER for trial in trials]

    def show(self) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._period
        text = self.text()
        if sys.stdout.isatty() and self._height:
            print(f"\x1b[{self._height}A\x1b[J", end="")
        self._height = text.count("\n") + 1
        print(text, flush=True)

    def close(self) -> None:
        self._next = 0.0
        self.show()

    def text(self) -> str:
        states = [_state(file) for file in self._files]
        rows = [
            [str(trial), s["state"], f"{s['iteration']}/{length}", s["mIoU"], _duration(s["left"])]
            for trial, s, length in zip(self._trials, states, self._lengths, strict=True)
        ]
        running = sum(s["state"] == "running" for s in states)
        known = [s["total"] for s in states if s["total"] is not None]
        total = None
        if known and running:
            typical = sum(known) / len(known)
            open_ends = [s for s in states if s["state"] in ("waiting", "running")]
            total = sum(typical if s["left"] is None else s["left"] for s in open_ends) / running
        done = sum(s["state"] == "done" for s in states)
        table = tabulate(rows, ["trial", "state", "iteration", "mIoU", "time left"], floatfmt=".2f")
        left = _duration(total) or "unknown"
        return f"{table}\n{done} of {len(states)} done, {running} running; time left {left}"


def _state(file: Path) -> dict[str, Any]:
    state: dict[str, Any] = {"state": "waiting", "iteration": 0, "mIoU": None, "left": None, "total": None}
    for line in read_lines(file):
        event = line["event"]
        state["state"] = _ENDS.get(event, "running")
        state["iteration"] = line.get("iteration", state["iteration"])
        state["mIoU"] = line.get("mIoU", state["mIoU"])
        if event == "result":
            result = line["result"]
            state |= {"iteration": result["iterations"], "total": result["wall_clock"], "left": None}
            state["mIoU"] = result["metrics"].get("mIoU")
        elif line.get("spent"):
            state["total"] = line["seconds"] / line["spent"]
            state["left"] = state["total"] - line["seconds"]
    if state["state"] not in ("waiting", "running"):
        state["left"] = None
    return state


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
