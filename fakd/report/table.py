"""Finished runs as tables: those that can be compared in one, named by what tells them apart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from fakd.engine.run_folder import deciding_values
from fakd.files import read_lines

from .finished_run import METRICS, FinishedRun
from .records import read_runs
from .statistics import Difference, paired_difference

TEACHER, STUDENT = "teacher", "student"
_TOLD = 10  # problems, where there is no report to list all
_MAX_KEYS = 2  # values in a name; runs that differ in more are called by their folders or configs
_SAME_TRAINING = {"SEED", "PLUGINS", "DATASETS.TEST"}  # keys that leave a method what it is


@dataclass(frozen=True)
class RunTable:
    """Runs of one pair that were tested on the same data.

    Attributes:
        runs: a row per run: ``run`` (its name), ``seed``, and the other fields of
            :class:`fakd.report.finished_run.FinishedRun`.
        scores: a row per run and test set: ``run``, ``seed``, ``dataset``, and mIoU, mAcc, aAcc in percent.
        iou: a row per run, test set and class: ``run``, ``seed``, ``dataset``, ``class``, ``IoU``.
        curves: a row per evaluation in training: ``run``, ``seed``, ``iteration``, ``seconds``, and ``mIoU``
            on :attr:`curve_dataset`.
        datasets: test sets, that of the runs' ``dataset`` first.
        baseline: the run that all others are measured against.
        label: what tells this table from others of a report; "" for the only one.
    """

    runs: pd.DataFrame
    scores: pd.DataFrame
    iou: pd.DataFrame
    curves: pd.DataFrame
    datasets: list[str]
    baseline: str = STUDENT
    label: str = ""

    @property
    def names(self) -> list[str]:
        """Runs in the order of every table: teachers, baseline, methods by name."""
        return self.teachers + [n for n in (self.baseline,) if n in set(self.runs["run"])] + self.methods

    @property
    def teachers(self) -> list[str]:
        """One, or several told apart by their names."""
        return sorted(n for n in set(self.runs["run"]) - {self.baseline} if _label(n) == TEACHER)

    @property
    def methods(self) -> list[str]:
        """The runs that are neither a teacher nor the baseline, by name."""
        return sorted(set(self.runs["run"]) - {*self.teachers, self.baseline})

    @property
    def reference(self) -> str:
        """How a sentence calls the baseline."""
        return "the student alone" if self.baseline == STUDENT else self.baseline

    @property
    def curve_dataset(self) -> str:
        """The test set that training is followed on: the runs' own first, whichever is reported first."""
        return str(self.runs["dataset"].iloc[0])

    def by_seed(self, run: str, dataset: str, metric: str = "mIoU") -> pd.Series:
        """One metric of one run, indexed by seed; seeds without a value are left out."""
        rows = self.scores[(self.scores["run"] == run) & (self.scores["dataset"] == dataset)]
        return rows.set_index("seed")[metric].dropna().sort_index()

    def versus(self, run: str, dataset: str) -> Difference | None:
        """A method's mIoU minus the baseline's at the same seed; None for other runs, or without seeds."""
        if run not in self.methods:
            return None
        return paired_difference(self.by_seed(run, dataset), self.by_seed(self.baseline, dataset))

    def of(self, run: str) -> list[dict[str, Any]]:
        """The rows of ``runs`` with this name, by ascending seed."""
        return self.runs[self.runs["run"] == run].to_dict("records")

    def firsts(self) -> dict[str, dict[str, Any]]:
        """One row of ``runs`` per name: that of the smallest seed that most names have."""
        common = self.runs["seed"].value_counts().sort_index().idxmax()
        return {
            name: next((row for row in self.of(name) if row["seed"] == common), self.of(name)[0])
            for name in self.names
        }

    @cached_property
    def logs(self) -> dict[str, dict[int, pd.DataFrame]]:
        """By name and seed, what metrics.json holds: a row per iteration, a column per quantity.

        Runs without a log, such as those of kept lines, are left out.
        """
        found: dict[str, dict[int, pd.DataFrame]] = {}
        for name in self.names:
            lines = {row["seed"]: pd.DataFrame(_log(row["folder"])) for row in self.of(name)}
            logs = {
                seed: log.groupby("iteration").last() for seed, log in lines.items() if "iteration" in log
            }
            if logs:
                found[name] = logs
        return found


def read_tables(
    paths: Sequence[str | Path], baseline: str | Path | None = None
) -> tuple[list[RunTable], list[str]]:
    """A table for each pair of a sweep, and each dataset, that finished runs were tested on.

    Args:
        paths: see :func:`fakd.report.records.read_runs`.
        baseline: name or folder of the run all others are measured against; default the student alone.

    Returns:
        The tables, and a sentence for each run that is missing, unfinished, unreadable or a repeat.

    Raises:
        FileNotFoundError: a path is not there or holds no run, or no run is finished.
        ValueError: the baseline is not among the runs.
    """
    # A name may happen to be that of some folder.
    given = [baseline] if baseline and any(Path(baseline).rglob("config.yaml")) else []
    runs, problems = read_runs([*given, *paths])
    if not runs:
        more = f" ... and {len(problems) - _TOLD} more" if len(problems) > _TOLD else ""
        raise FileNotFoundError("No finished run among them. " + " ".join(problems[:_TOLD]) + more)
    parts = {label: _name(members, problems) for label, members in _parts(runs).items()}
    baselines = {label: _baseline(named, baseline) for label, named in parts.items()}
    if not any(baselines.values()):
        raise ValueError(f"The baseline '{baseline}' is not finished or cannot be read. {' '.join(problems)}")
    for label, named in parts.items():
        problems += _not_started(named, label, problems)
    tables = [make_table(named, baselines[x] or _baseline(named, None), x) for x, named in parts.items()]
    return tables, problems


def make_table(named: Sequence[tuple[str, FinishedRun]], baseline: str, label: str = "") -> RunTable:
    """A table of runs with their names, one or more."""
    rows = [{**dict(run), "run": name} for name, run in named]
    scores: list[dict[str, Any]] = []
    iou, curves = [], []
    for name, run in named:
        curves += [(name, run.seed, *point) for point in run.curve]
        for dataset, metrics in run.metrics_by_dataset.items():
            at = {"run": name, "seed": run.seed, "dataset": dataset}
            scores.append({**at, **{metric: getattr(metrics, metric) for metric in METRICS}})
            iou += [{**at, "class": c, "IoU": value} for c, value in metrics.IoU.items()]
    columns = ["run", "seed", "iteration", "mIoU", "seconds"]
    return RunTable(
        runs=pd.DataFrame(rows).sort_values(["run", "seed"], ignore_index=True),
        scores=pd.DataFrame(scores).astype(dict.fromkeys(METRICS, float)),
        iou=pd.DataFrame(iou, columns=["run", "seed", "dataset", "class", "IoU"]).astype({"IoU": float}),
        curves=pd.DataFrame(curves, columns=columns).astype({"mIoU": float, "seconds": float}),
        datasets=list(dict.fromkeys([named[0][1].dataset, *pd.DataFrame(scores)["dataset"]])),
        baseline=baseline,
        label=label,
    )


def _log(folder: Path | None) -> list[dict[str, Any]]:
    try:
        return [x for x in read_lines(folder / "metrics.json") if isinstance(x, dict)] if folder else []
    except (OSError, ValueError):  # reported already when the curve was read
        return []


def _parts(runs: list[FinishedRun]) -> dict[str, list[FinishedRun]]:
    """Runs that can be compared, by label; a teacher is in each part that learns from it."""
    taught = {run.teacher for run in runs} - {""}

    def kind(run: FinishedRun) -> tuple[str, tuple[str, ...]]:
        return run.dataset, tuple(run.classes)

    teachers = [run for run in runs if run.label == TEACHER or taught & run.references]
    parts: dict[tuple, list[FinishedRun]] = {}
    for run in runs:
        if run not in teachers:
            parts.setdefault((run.pair, *kind(run)), []).append(run)
    known = {key: {run.teacher for run in members} for key, members in parts.items()}
    teachers.sort(key=lambda run: not any(run.references & each for each in known.values()))
    taken: set[tuple] = set()
    for teacher in teachers:
        homes = [key for key in known if key[1:] == kind(teacher) and known[key] & teacher.references]
        # Where runs do not say which one they learnt from, or it is not among them, it may be this one.
        homes = homes or [key for key in known if key[1:] == kind(teacher) and key not in taken]
        taken.update(homes)
        for key in homes or [("", *kind(teacher))]:
            parts.setdefault(key, []).append(teacher.model_copy(update={"run": TEACHER}))
    labels: dict[str, list[FinishedRun]] = {}
    for (pair, dataset, classes), members in parts.items():
        label = ", ".join(filter(None, (pair, dataset if len({key[1] for key in parts}) > 1 else "")))
        labels[label if label not in labels else f"{label}, {len(classes)} classes"] = members
    return labels


def _name(runs: list[FinishedRun], problems: list[str]) -> list[tuple[str, FinishedRun]]:
    """Names runs by their method and what else tells them apart."""
    kinds: dict[str, dict[str, dict[str, Any]]] = {}
    for run in runs:
        values = deciding_values(run.config) | {"max_seconds": run.max_seconds} if run.config else {}
        kinds.setdefault(run.label, {}).setdefault(run.digest, values)
    teachers: dict[str, tuple[str, int]] = {}  # names and seeds by identity
    named: dict[tuple[str, int], FinishedRun] = {}
    for run in sorted(runs, key=lambda run: run.label != TEACHER):
        configs = kinds[run.label]
        varying = _varying(list(configs.values()))
        told = ", ".join(_value(key, configs[run.digest].get(key), teachers) for key in varying)
        elsewhere = run.source.removesuffix(f"/seed{run.seed}") if run.folder else f"config {run.digest[:6]}"
        tag = told if len(varying) <= _MAX_KEYS else elsewhere
        name = f"{run.label} ({tag})" if varying else run.label
        if run.label == TEACHER:
            teachers[run.identity] = name, run.seed
        twin = named.setdefault((name, run.seed), run)
        if twin is not run:
            problems.append(f"{run.source}: has the name and seed of {twin.source}, which is shown instead.")
    return [(name, run) for (name, _), run in named.items()]


def _value(key: str, value: Any, teachers: dict[str, tuple[str, int]]) -> str:
    if key == "KD.TEACHER.WEIGHTS" and (known := teachers.get(str(value).partition("/")[0])):
        name, seed = known
        told = name.replace(" (", " ").removesuffix(")")
        alike = sum(other == name for other, _ in teachers.values()) > 1  # a name tells no seeds apart
        return f"{told} seed {seed}" if alike else told
    return f"{key.rsplit('.', 1)[-1]} {value}"


def _varying(configs: list[dict[str, Any]]) -> list[str]:
    """Keys of the training that have different values in them."""
    keys = sorted({key for config in configs for key in config} - _SAME_TRAINING)
    return [key for key in keys if any(c.get(key) != configs[0].get(key) for c in configs)]


def _label(name: str) -> str:
    """A run's name without what tells it from others of its method."""
    return name.partition(" (")[0]


def _baseline(named: list[tuple[str, FinishedRun]], given: str | Path | None) -> str:
    """Name of the run to measure against; "" if it is given and not among them."""
    if given is not None:
        place = Path(given).resolve()
        for name, run in named:
            folder = run.folder.resolve() if run.folder else Path()
            if name == str(given) or place in (folder, *folder.parents):
                return name
        return ""
    students = [(name, run) for name, run in named if _label(name) != TEACHER]
    alone = [name for name, run in students if not run.is_distilled]
    return STUDENT if STUDENT in alone else (alone or [name for name, _ in students or named])[0]


def _not_started(named: list[tuple[str, FinishedRun]], label: str, problems: list[str]) -> list[str]:
    """Seeds that some students have and others have not; a teacher needs only one."""
    told = {place for problem in problems for place in re.findall(r"([^/]+)/seed(\d+): ", problem)}
    seen = {(name, run.seed) for name, run in named if _label(name) != TEACHER}
    begun = seen if label else seen | {(name, int(seed)) for name, seed in told if name != TEACHER}
    missing = [
        (name, seed)
        for name in sorted({name for name, _ in begun})
        for seed in sorted({seed for _, seed in begun})
        if (name, seed) not in seen and (name, str(seed)) not in told
    ]
    where = f" ({label})" if label else ""
    return [f"{name}, seed {seed}{where}: no run, though others have this seed." for name, seed in missing]
