"""The progress of a sweep, from the events of its runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from tabulate import tabulate

from fakd.files import read_lines

from .events import events_file
from .trial import Trial

_STATES = {
    "result": "done",
    "failed": "failed",
    "out_of_memory": "out of memory",
    "stopped": "stopped early",
    "paused": "waiting",
}


class Progress:
    """Prints a row per trial: state, iteration, mIoU, time left; and the time left of the whole sweep.

    On a terminal the table is drawn over itself every two seconds. In a log each change of a state is a line,
    and the table comes every minute.
    """

    _LOOK, _LOG = 2.0, 60.0  # seconds

    def __init__(self, trials: Sequence[Trial], output: Path):
        self._output = output
        self._states: dict[Trial, str] = {}
        self._next, self._height = 0.0, 0
        self._next_table = time.monotonic() + self._LOG
        self.show_of(trials)

    def show_of(self, trials: Sequence[Trial]) -> None:
        """Shows these trials from now on."""
        self._trials = list(trials)
        self._files = [events_file(self._output, trial.folder) for trial in trials]
        self._lengths = [trial.config().SOLVER.MAX_ITER for trial in trials]

    def show(self) -> None:
        """Prints, if it is time to."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self._LOOK
            self._print(time.monotonic() >= self._next_table)

    def close(self) -> None:
        """Prints how all ended."""
        self._print(table=True)

    def _print(self, table: bool) -> None:
        states = [_state(file) for file in self._files]
        on_terminal = sys.stdout.isatty()
        if on_terminal and self._height:
            print(f"\x1b[{self._height}A\x1b[J", end="")
        if not on_terminal:
            self._print_changes(states)
        if on_terminal or table:
            self._next_table = time.monotonic() + self._LOG
            text = self._text(states)
            self._height = text.count("\n") + 1
            print(text)
        sys.stdout.flush()

    def _print_changes(self, states: Sequence[dict[str, Any]]) -> None:
        for trial, state in zip(self._trials, states, strict=True):
            if self._states.get(trial, "waiting") != state["state"]:
                score = "" if state["mIoU"] is None else f", mIoU {state['mIoU']:.2f}"
                error = f": {state['error']}" if state["error"] else ""
                print(f"{time.strftime('%H:%M:%S')} {trial}: {state['state']}{score}{error}")
            self._states[trial] = state["state"]

    def _text(self, states: Sequence[dict[str, Any]]) -> str:
        rows = [
            [str(trial), s["state"], f"{s['iteration']}/{length}", s["mIoU"], _duration(s["left"])]
            for trial, s, length in zip(self._trials, states, self._lengths, strict=True)
        ]
        running = sum(s["state"] == "running" for s in states)
        known = [s["total"] for s in states if s["total"] is not None]
        left = "; time left unknown" if running else ""
        if known and running:
            open_ends = [s["left"] for s in states if s["state"] in ("waiting", "running")]
            typical = sum(known) / len(known)
            total = sum(typical if each is None else each for each in open_ends) / running
            left = f"; time left {_duration(total)}"
        done = sum(s["state"] == "done" for s in states)
        table = tabulate(rows, ["trial", "state", "iteration", "mIoU", "time left"], floatfmt=".2f")
        return f"{table}\n{done} of {len(states)} done, {running} running{left}"


def _state(file: Path) -> dict[str, Any]:
    state = dict.fromkeys(("mIoU", "left", "total")) | {"state": "waiting", "iteration": 0, "error": ""}
    for line in read_lines(file):
        state |= {key: line[key] for key in ("iteration", "mIoU") if key in line}
        state |= {"state": _STATES.get(line["event"], "running"), "error": line.get("error", "")}
        if line["event"] == "result":
            result = line["result"]
            state |= {"iteration": result.get("iterations", 0), "mIoU": result["metrics"].get("mIoU")}
            state["total"] = result.get("wall_clock")
        elif line.get("spent"):
            state["total"] = line["seconds"] / line["spent"]
            state["left"] = state["total"] - line["seconds"]
    return state if state["state"] in ("waiting", "running") else state | {"left": None}


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))
