"""Finished runs from the folders that training and sweeps left."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from fakd.engine.run_folder import RunFolder
from fakd.errors import message_of
from fakd.files import read_lines
from fakd.sweep.events import FOLDER as EVENTS
from fakd.validation import parse, read_json, read_yaml

from .finished_run import FinishedRun, digest_of, without_paths


def read_folder(path: Path, problems: list[str]) -> Iterator[FinishedRun]:
    """The finished runs in a folder at any depth.

    Args:
        path: of the folder.
        problems: takes a sentence for each run that is unfinished or unreadable.

    Raises:
        FileNotFoundError: there is no run.
    """
    places: dict[Path, list[dict[str, Any]]] = {}
    for spec in sorted(path.rglob("sweep.json")):
        try:
            places |= _events(spec.parent)
        except (OSError, ValueError) as error:
            problems.append(f"{error} Its runs are shown without their places in the sweep.")
    folders = {file.parent for file in path.rglob("config.yaml")}
    folders |= {
        each
        for each in (path, *path.rglob("seed*"))
        if each.is_dir() and each.name.removeprefix("seed").isdigit()
    }
    if not folders and not places:
        raise FileNotFoundError(
            f"'{path}' holds no run: there is no config.yaml in it or below. Give folders that training left "
            "(OUTPUT_DIR), or a folder of such folders."
        )
    for folder in sorted(folders | places.keys()):
        lines = places.get(folder, [])
        source = str(Path(path.name, folder.relative_to(path)) if path.is_absolute() else folder)
        try:
            yield _read_run(folder, lines, source, problems)
        except FileNotFoundError:
            problems.append(f"{source}: {_why_unfinished(folder, lines)}")
        except _UntestedError as error:
            problems.append(f"{source}: {error}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            problems.append(f"{source}: cannot be read: {message_of(error)} Train it again.")


def title_of(sweep: Path) -> str:
    """What a sweep's file calls it; "" also where that is damaged, which is told when its runs are read."""
    try:
        return parse(_Sweep, read_json(sweep / "sweep.json"), sweep).title
    except (OSError, ValueError):
        return ""


def _events(sweep: Path) -> dict[Path, list[dict[str, Any]]]:
    """The events of each of a sweep's runs that began, by its folder, after one of the sweep itself."""
    spec = parse(_Sweep, read_json(sweep / "sweep.json"), sweep / "sweep.json")
    found = {}
    for file in sorted((sweep / EVENTS).glob("*.jsonl")):
        lines = [line for line in read_lines(file) if isinstance(line, dict) and "event" in line]
        if starts := [line for line in lines if line["event"] == "start"]:
            # The sweep may have been moved, and a name may hold a "+", as 1e+05 does.
            parts = Path(str(starts[-1].get("folder"))).parts
            tails = (parts[-n:] for n in range(1, len(parts) + 1))
            below = next((tail for tail in tails if "+".join(tail) == file.stem), file.stem.split("+"))
            found[sweep.joinpath(*below)] = [{"event": "sweep", "spec": spec}, *lines]
    return found


def _read_run(
    folder: Path, events: Sequence[Mapping[str, Any]], source: str, problems: list[str]
) -> FinishedRun:
    """A run from its folder and what a sweep wrote of it; a folder that is gone is not needed then.

    Raises:
        FileNotFoundError: it is not finished.
        _UntestedError: it is, but was not tested.
        OSError, ValueError: its result or config is damaged.
    """
    results = [event["result"] for event in events if event["event"] == "result"]
    file = folder / "result.json"
    if not results or file.exists():
        results = [read_json(file)]
    content = results[-1]
    if isinstance(content, dict):
        if content.get("dataset", "") is None and not content.get("metrics_by_dataset"):
            raise _UntestedError("was not tested (DATASETS.TEST is empty), so there is nothing to report.")
        content = _place_of(folder) | content | _place(events)
    run = parse(FinishedRun, content, "result.json")
    config_file, teacher = folder / "config.yaml", ""
    config: dict[str, Any] = {}
    if config_file.exists():
        config = _read_config(config_file)
        teacher = _teacher_of(folder, config)
        config = without_paths(config, teacher)
    update = {
        "config": config,
        "teacher": teacher if config else run.teacher,
        "folder": folder,
        "source": source,
        "curve": _curve(folder, events, run.dataset, source, problems),
        "confusion": _confusion(folder, source, problems),
    }
    run = run.model_copy(update=update)
    return run.model_copy(update={"digest": digest_of(config, run)})


def _place_of(folder: Path) -> dict[str, Any]:
    """From the names of its folders: ``<method>/seed<k>``, below the pair where ``teachers`` is beside it."""
    folder = Path(os.path.abspath(folder))  # a relative one may leave out the names
    if not (seed := folder.name.removeprefix("seed")).isdigit():
        return {}
    place = {"method": folder.parent.name, "seed": int(seed)}
    pair = folder.parent.parent  # not from `parents`, which end at the root
    is_pair = pair.name != "runs" and (pair.parent / "teachers").is_dir()
    return place | {"pair": pair.name} if is_pair else place


def _place(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a sweep recorded about a run."""
    if not events:
        return {}
    spec: _Sweep = events[0]["spec"]
    start = [event for event in events if event["event"] == "start"][-1]
    place = {key: start[key] for key in ("pair", "run", "seed", "values")}
    schedule = start.get("schedule", [])
    if len(schedule) > 1:
        place |= {"schedule": schedule, "values": {}}  # no single value describes it
    row = spec.pairs.get(place["pair"], {}).get("paper", "")
    return place | {
        "max_seconds": spec.stop.get("seconds"),
        "paper": f"{spec.paper}/{row}" if row else "",
        "teacher": start.get("teacher") or "",
    }


def _read_config(file: Path) -> dict[str, Any]:
    config = read_yaml(file)
    if not isinstance(config, dict) or not isinstance(config.get("MODEL"), dict):
        raise ValueError(f"{file.name}: no config of a run")
    return config


def _teacher_of(folder: Path, config: Mapping[str, Any]) -> str:
    """Identity of the run a distilled student learnt from; "" for a student alone, or a foreign teacher."""
    if config["MODEL"].get("META_ARCHITECTURE") != "Distiller":
        return ""
    weights = Path(config["KD"]["TEACHER"]["WEIGHTS"])
    for file in (weights.parent / "config.yaml", folder / "teacher.yaml"):
        if file.exists():
            teacher = without_paths(_read_config(file), "")
            return f"{digest_of(teacher)}-{teacher['SEED']}"
    return ""


def _curve(
    folder: Path, events: Sequence[Mapping[str, Any]], dataset: str, source: str, problems: list[str]
) -> list[tuple[int, float, float | None]]:
    """mIoU over iterations. A resumed run repeats iterations: the later line is the one that counts."""
    found: dict[int, tuple[float, float | None]] = {}
    try:
        for line in read_lines(folder / "metrics.json"):
            # detectron2 leaves the set's name out when there is only one
            value = line.get(f"{dataset}/sem_seg/mIoU", line.get("sem_seg/mIoU"))
            if value is not None:
                found[int(line["iteration"])] = float(value), None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problems.append(f"{source}: its curve is left out, because metrics.json cannot be read: {error}")
    told = {e["iteration"]: (e["mIoU"], e["seconds"]) for e in events if e["event"] == "evaluation"}
    found = told or found
    return [(i, *found[i]) for i in sorted(found)]


def _confusion(folder: Path, source: str, problems: list[str]) -> dict[str, list[list[int]]]:
    file = RunFolder(folder).confusion_file
    if not file.exists():
        return {}
    try:
        return parse(_Confusion, {"by_set": read_json(file)}, "confusion.json").by_set
    except (OSError, ValueError) as error:
        problems.append(f"{source}: its confusions are left out: {error}")
        return {}


class _UntestedError(Exception):
    """A run that only trained, as for the weights that another starts from."""


class _Sweep(BaseModel):
    """The part of a sweep's file that a report needs."""

    title: str = ""
    paper: Any = ""
    pairs: dict[str, dict[str, Any]] = {}
    stop: dict[str, float] = {}


class _Confusion(BaseModel):
    model_config = ConfigDict(strict=True)

    by_set: dict[str, list[list[int]]]

    @model_validator(mode="after")
    def _is_square(self) -> _Confusion:
        for name, counts in self.by_set.items():
            if any(len(row) != len(counts) for row in counts):
                raise ValueError(f"the matrix of {name} is not square")
        return self


def _why_unfinished(folder: Path, events: Sequence[Mapping[str, Any]]) -> str:
    """Why a run has no result."""
    if events:
        end = events[-1]
        if "error" in end:
            return f"{end['event'].replace('_', ' ')}: {end['error']}"
        reached = max((event.get("iteration", 0) for event in events), default=0)
        state = "stopped early by the scheduler" if end["event"] == "stopped" else "not finished"
        return f"{state} after {reached} iterations."
    logged = [line for line in read_lines(folder / "metrics.json") if isinstance(line, dict)]
    iterations = [line.get("iteration", 0) for line in logged]
    reason = f"last logged iteration {max(iterations)}" if iterations else "nothing logged"
    return f"not finished ({reason}). Repeat its command, with --resume for a run of its own."
