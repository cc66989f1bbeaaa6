"""The one reader of finished runs: folders that training or a sweep left, and files of kept JSON lines.

A line is all that a report needs of a finished run: what its ``result.json`` says, its place in a sweep, mIoU
over training, the confusion matrix, and its config, in full in the first line of a file that has it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fakd.files import atomic_write
from fakd.validation import parse

from .finished_run import FinishedRun, digest_of
from .folders import read_folder


def read_runs(paths: Sequence[str | Path]) -> tuple[list[FinishedRun], list[str]]:
    """All finished runs in some places.

    Args:
        paths: folders that hold runs or sweeps at any depth, and files of lines.

    Returns:
        The runs, and a sentence for each that is unfinished, unreadable or a repeat.

    Raises:
        FileNotFoundError: a path is not there or holds no run.
    """
    runs: dict[tuple[str, str], FinishedRun] = {}
    problems: list[str] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = read_folder(path, problems)
        elif path.is_file():
            found = read_kept(path, problems)
        else:
            raise FileNotFoundError(f"No folder or file '{path}': give folders that training left.")
        for run in found:
            twin = runs.setdefault(run.place, run)
            if twin is not run and twin.finished != run.finished:
                problems.append(
                    f"{run.source}: has the config and the seed of {twin.source}, which is shown instead."
                )
    return list(runs.values()), problems


def read_kept(path: Path, problems: list[str]) -> Iterator[FinishedRun]:
    """The runs of a file of lines; a sentence for each line that is not one goes to ``problems``."""
    configs: dict[str, dict[str, Any]] = {}
    for source, run in _parsed(path, problems):
        config = run.config or configs.get(run.digest, {})
        if run.digest and not config:
            problems.append(f"{source}: no line before it has the config {run.digest}.")
            continue
        configs[run.digest] = config
        config = config and {**config, "SEED": run.seed}
        update = {"config": config, "digest": digest_of(config, run), "source": f"{source} ({run.method})"}
        yield run.model_copy(update=update)


def _parsed(path: Path, problems: list[str]) -> Iterator[tuple[str, FinishedRun]]:
    """What a message calls each line that is a run, and what it says of it."""
    for number, text in enumerate(path.read_bytes().splitlines(), 1):  # one bad byte must not cost the others
        source = f"{path}, line {number}"
        try:
            yield source, parse(FinishedRun, json.loads(text), source)
        except (ValueError, RecursionError) as error:
            told = str(error) if str(error).startswith(source) else f"{source}: no JSON: {error}"
            problems.append(told)


def write_lines(paths: Sequence[str | Path], file: str | Path) -> tuple[int, list[str]]:
    """Adds each finished run that a file of lines has not yet.

    Args:
        paths: see :func:`read_runs`.
        file: JSON lines; need not be there yet.

    Returns:
        How many runs were added, and a sentence for each that is not finished or cannot be read.
    """
    file = Path(file)
    runs, problems = read_runs(paths)
    known = {run.place for run in read_kept(file, problems)} if file.exists() else set()
    configs = {run.digest for _, run in _parsed(file, []) if run.config} if file.exists() else set()
    lines = []
    for run in runs:
        if not run.digest:
            problems.append(f"{run.source}: its folder holds no config any more, and none is kept without.")
        elif run.place not in known:
            lines.append(run.line(run.digest not in configs) + "\n")
            configs.add(run.digest)
    file.parent.mkdir(parents=True, exist_ok=True)
    old = [line + b"\n" for line in file.read_bytes().splitlines()] if file.exists() else []
    with atomic_write(file) as stream:
        stream.writelines([*old, *(line.encode() for line in lines)])
    return len(lines), problems
