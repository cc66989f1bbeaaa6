"""Finished runs from anywhere, those that differ by their seed alone taken together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fakd.engine.run_folder import RunFolder
from fakd.files import read_lines

from .results import TEACHER, Study, evaluations, make_study, read_result, why_unfinished

_MAX_KEYS = 2  # values in a name; runs that differ in more are called by their folders


@dataclass
class FinishedRun:
    """A run that left ``result.json`` and ``config.yaml``.

    Attributes:
        folder: it lies in.
        result: what it wrote, see :func:`fakd.engine.result.build_result`.
        config: what its weights depend on, by dotted key.
        name: that of its group.
    """

    folder: Path
    result: dict[str, Any]
    config: dict[str, Any]
    name: str = ""

    @property
    def seed(self) -> int:
        return self.config["SEED"]

    @property
    def method(self) -> str:
        return self.result.get("method") or "student"

    @property
    def is_distilled(self) -> bool:
        return self.config["MODEL.META_ARCHITECTURE"] == "Distiller"

    @property
    def classes(self) -> list[str]:
        return list(self.result["metrics_by_dataset"][self.result["dataset"]].get("IoU", {}))

    @property
    def weights(self) -> Path:
        return self.folder / "model_final.pth"

    @cached_property
    def log(self) -> pd.DataFrame:
        """What ``metrics.json`` holds: a row per iteration, a column per name, nan where nothing is."""
        lines = pd.DataFrame(read_lines(self.folder / "metrics.json"))
        return lines.groupby("iteration").last() if len(lines) else lines

    @property
    def covariances(self) -> list[str]:
        """The losses whose covariances the log follows."""
        return sorted({name.split("/")[0] for name in self.log if "/trace/" in name})

    @cached_property
    def confusion(self) -> np.ndarray | None:
        """(K, K) counts on the first test set, row = label, column = prediction; None if none were kept."""
        file = RunFolder(self.folder).confusion_file
        counts = json.loads(file.read_text()).get(self.result["dataset"]) if file.exists() else None
        return None if counts is None else np.array(counts)


@dataclass(frozen=True)
class RunGroups:
    """Runs to compare.

    Attributes:
        study: their numbers.
        groups: runs by name in the order of ``study.names``, seeds ascending.
    """

    study: Study
    groups: dict[str, list[FinishedRun]]

    def firsts(self) -> dict[str, FinishedRun]:
        """One run per group: that of the smallest seed that most groups have."""
        seeds = pd.Series([run.seed for runs in self.groups.values() for run in runs])
        common = seeds.value_counts().sort_index().idxmax()
        return {
            name: next((run for run in runs if run.seed == common), runs[0])
            for name, runs in self.groups.items()
        }


def read_groups(paths: Sequence[str | Path], baseline: str | Path | None = None) -> RunGroups:
    """Reads runs; unfinished and damaged ones become problems of the study.

    Args:
        paths: folders of runs, or folders that hold some at any depth.
        baseline: the run all others are measured against; default the first that is a student alone, or
            else the first.

    Raises:
        FileNotFoundError: a folder is not there or holds no run, or no run is finished.
        ValueError: the runs were tested on different data or classes.
    """
    folders = dict.fromkeys(
        run for path in [*([baseline] if baseline else []), *paths] for run in _runs(path)
    )
    problems, runs = [], []
    for folder in folders:
        try:
            runs.append(FinishedRun(folder, read_result(folder), RunFolder(folder).config()))
        except FileNotFoundError:
            problems.append(
                f"{folder}: not finished ({why_unfinished(folder)}). Go on with its command and --resume, or "
                "repeat the study or sweep."
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"{folder}: cannot be read ({type(error).__name__}: {error}). Train it again.")
    if not runs:
        raise FileNotFoundError("No finished run among them. " + " ".join(problems))
    _check_comparable(runs)
    problems += _name(runs)
    runs = [run for run in runs if run.name]
    chosen = _baseline(runs, Path(baseline) if baseline else None)
    study = make_study(
        [{**run.result, "run": run.name, "seed": run.seed} for run in runs],
        [
            {"run": run.name, "seed": run.seed, **point}
            for run in runs
            for point in evaluations(run.folder / "metrics.json", run.result["dataset"])
        ],
        problems,
        chosen.name,
    )
    groups = {
        name: sorted((run for run in runs if run.name == name), key=lambda run: run.seed)
        for name in study.names
    }
    return RunGroups(study, groups)


def _runs(path: str | Path) -> list[Path]:
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"No folder '{path}': give folders that training left (OUTPUT_DIR).")
    found = sorted(file.parent for file in path.glob("**/config.yaml"))
    if not found:
        raise FileNotFoundError(
            f"'{path}' holds no run: there is no config.yaml in it or below. Give folders that training left "
            "(OUTPUT_DIR), or a folder of such folders."
        )
    return found


def _check_comparable(runs: list[FinishedRun]) -> None:
    first, *others = runs
    for run in others:
        if (run.result["dataset"], run.classes) != (first.result["dataset"], first.classes):
            raise ValueError(
                f"'{run.folder}' was tested on {run.result['dataset']} with {len(run.classes)} classes, "
                f"'{first.folder}' on {first.result['dataset']} with {len(first.classes)}: they cannot be "
                "compared. Leave one out, or test both on the same data (DATASETS.TEST)."
            )


def _name(runs: list[FinishedRun]) -> list[str]:
    """Names all runs by their method and what else tells them apart; a sentence for each that is a repeat."""
    taught = {Path(run.config["KD.TEACHER.WEIGHTS"]).resolve() for run in runs if run.is_distilled}
    kinds: dict[str, dict[str, list[FinishedRun]]] = {}
    problems = []
    for run in runs:
        is_teacher = any(file.parent == run.folder.resolve() for file in taught)
        label = TEACHER if is_teacher else run.method
        key = json.dumps({k: v for k, v in run.config.items() if k != "SEED"}, sort_keys=True, default=str)
        kind = kinds.setdefault(label, {}).setdefault(key, [])
        if twin := next((other for other in kind if other.seed == run.seed), None):
            problems.append(
                f"{run.folder}: has the config and the seed of {twin.folder}, which is shown instead."
            )
        else:
            kind.append(run)
    for label, by_config in kinds.items():
        varying = _varying([group[0].config for group in by_config.values()])
        for group in by_config.values():
            values = " ".join(f"{key.rsplit('.', 1)[-1]} {group[0].config.get(key)}" for key in varying)
            tag = values if len(varying) <= _MAX_KEYS else str(group[0].folder)
            for run in group:
                run.name = f"{label} ({tag})" if varying else label
    return problems


def _varying(configs: list[dict[str, Any]]) -> list[str]:
    """Keys that have different values in them, the seed aside."""
    keys = sorted({key for config in configs for key in config} - {"SEED"})
    return [key for key in keys if any(c.get(key) != configs[0].get(key) for c in configs)]


def _baseline(runs: list[FinishedRun], given: Path | None) -> FinishedRun:
    if given is not None:
        of_it = [
            run for run in runs if given.resolve() in (run.folder.resolve(), *run.folder.resolve().parents)
        ]
        if not of_it:
            raise ValueError(f"The baseline '{given}' is not finished or cannot be read; see the log in it.")
        return of_it[0]
    alone = [run for run in runs if not run.is_distilled and run.name != TEACHER]
    return (alone or [run for run in runs if run.name != TEACHER] or runs)[0]
