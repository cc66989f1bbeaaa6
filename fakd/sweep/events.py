"""The plain record of a sweep: a file of JSON lines per run, written by the run itself.

Each line has "event" and "trial", the run's place in the sweep:

- ``start``: the run's process begins, or begins again, with these values of the keys, and those before;
- ``progress``: iteration, seconds of training and share of the budget so far;
- ``evaluation``: the same, and mIoU, mAcc and aAcc;
- ``result``: the run is finished; all of its ``result.json``;
- ``out_of_memory``, ``failed``: with the error;
- ``stopped``: the scheduler ended the run early.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from fakd.files import read_lines

FOLDER = "lines"
ENDS = ("result", "out_of_memory", "failed", "stopped")


def lines_file(output: Path, folder: Path) -> Path:
    """Where the lines of the run in ``folder`` lie."""
    return output / FOLDER / ("+".join(folder.relative_to(output).parts) + ".jsonl")


def append(path: Path, event: str, **content: Any) -> None:
    """Adds a line, whole or not at all as long as one process writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"event": event, **content}).encode() + b"\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def last(path: Path, *events: str) -> dict[str, Any] | None:
    """The latest line of one of these events."""
    found = [line for line in read_lines(path) if line["event"] in events]
    return found[-1] if found else None


def is_open(path: Path) -> bool:
    """Whether the run has not said how it ended."""
    line = last(path, "start", *ENDS)
    return line is None or line["event"] == "start"
