"""The record of a sweep: a file of JSON lines per run, an event per line, written by the run itself.

Each line has "event" and, where it starts, the run's place in the sweep:

- ``start``: the run's process begins, or begins again, with these values of the keys, and those before;
- ``progress``: iteration, seconds of training and share of the budget so far;
- ``evaluation``: the same, and mIoU, mAcc and aAcc;
- ``result``: the run is finished; all of its ``result.json``;
- ``out_of_memory``, ``failed``: with the error;
- ``stopped``: the scheduler ended the run early;
- ``paused``: it waits for the others of its population.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fakd.files import append_line, read_lines

FOLDER = "lines"
ENDS = ("result", "out_of_memory", "failed", "stopped", "paused")


def events_file(output: Path, folder: Path) -> Path:
    """Where the events of the run in ``folder`` lie."""
    return output / FOLDER / ("+".join(folder.relative_to(output).parts) + ".jsonl")


def append(path: Path, event: str, **content: Any) -> None:
    """Adds a line; see :func:`fakd.files.append_line`."""
    append_line(path, {"event": event, **content})


def last(path: Path, *events: str) -> dict[str, Any] | None:
    """The latest line of one of these events."""
    found = [line for line in read_lines(path) if line["event"] in events]
    return found[-1] if found else None


def is_open(path: Path) -> bool:
    """Whether the run has not said how it ended."""
    line = last(path, "start", *ENDS)
    return line is None or line["event"] == "start"
