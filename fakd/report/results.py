"""Reads a study: the ``result.json`` and ``metrics.json`` of many runs, as tables.

A study is a folder ``<study>/<run>/seed<k>/``. The runs named "teacher" and "student" are the teacher and
the student without help; every other run is a method.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fakd.files import read_lines

logger = logging.getLogger(__name__)

TEACHER, STUDENT = "teacher", "student"
METRICS = ["mIoU", "mAcc", "aAcc"]


@dataclass(frozen=True)
class Study:
    """The runs of a study.

    Attributes:
        runs: a row per finished run: ``run``, ``seed`` and the fields of its ``result.json``.
        scores: a row per finished run and test set: ``run``, ``seed``, ``dataset``, and mIoU, mAcc, aAcc in
            percent.
        iou: a row per finished run, test set and class: ``run``, ``seed``, ``dataset``, ``class``, ``IoU``.
        curves: a row per evaluation during training: ``run``, ``seed``, ``iteration``, ``mIoU`` on the
            primary test set.
        datasets: test sets, the primary one first.
        problems: a sentence for each run that is missing, unfinished or unreadable.
        baseline: the run that all others are measured against.
    """

    runs: pd.DataFrame
    scores: pd.DataFrame
    iou: pd.DataFrame
    curves: pd.DataFrame
    datasets: list[str]
    problems: list[str]
    baseline: str = STUDENT

    @property
    def names(self) -> list[str]:
        """Runs in the order of every table: teacher, baseline, methods by name."""
        present = set(self.runs["run"])
        return [n for n in dict.fromkeys((TEACHER, self.baseline)) if n in present] + self.methods

    @property
    def methods(self) -> list[str]:
        return sorted(set(self.runs["run"]) - {TEACHER, self.baseline})

    @property
    def reference(self) -> str:
        """How a sentence calls the baseline."""
        return "the student without help" if self.baseline == STUDENT else self.baseline

    def by_seed(self, run: str, dataset: str, metric: str = "mIoU") -> pd.Series:
        """One metric of one run, indexed by seed; seeds without a value are left out."""
        rows = self.scores[(self.scores["run"] == run) & (self.scores["dataset"] == dataset)]
        return rows.set_index("seed")[metric].dropna().sort_index()


def read_study(folder: Path) -> Study:
    """Reads all runs below ``folder``; one that cannot be read becomes a problem, the rest goes on.

    Raises:
        FileNotFoundError: ``folder`` is not there, or no run in it is finished.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"No folder '{folder}': give the folder of a study, which holds <run>/seed<k>/."
        )
    results, problems, seen = [], [], []
    for path, run, seed in _run_folders(folder):
        seen.append((run, seed))
        try:
            results.append({**read_result(path), "run": run, "seed": seed})
        except FileNotFoundError:
            problems.append(f"{run}, seed {seed}: not finished ({why_unfinished(path)}).")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            problems.append(f"{run}, seed {seed}: {run}/seed{seed}/result.json cannot be used ({reason}).")
            logger.warning(problems[-1])
    if not results:
        raise FileNotFoundError(
            f"No finished run in '{folder}': expected <run>/seed<k>/result.json there. {' '.join(problems)}"
        )
    primary = _datasets(results)[0]
    points = [
        {"run": run, "seed": seed, **point}
        for path, run, seed in _run_folders(folder)
        for point in evaluations(path / "metrics.json", primary)
    ]
    return make_study(results, points, problems + _not_started(seen))


def make_study(
    results: list[dict[str, Any]],
    points: list[dict[str, Any]],
    problems: list[str],
    baseline: str = STUDENT,
) -> Study:
    """A study from its parts.

    Args:
        results: content of a ``result.json`` with ``run`` and ``seed`` each, one or more.
        points: rows of ``curves``; may have further columns.
        problems: see :class:`Study`.
        baseline: the same.
    """
    curves = pd.DataFrame(points)
    return Study(
        runs=pd.DataFrame(results).sort_values(["run", "seed"], ignore_index=True),
        scores=pd.DataFrame(_scores(results)).astype(dict.fromkeys(METRICS, float)),
        iou=pd.DataFrame(_class_iou(results), columns=["run", "seed", "dataset", "class", "IoU"]),
        curves=curves if points else pd.DataFrame(columns=["run", "seed", "iteration", "mIoU", "seconds"]),
        datasets=_datasets(results),
        problems=problems,
        baseline=baseline,
    )


def _run_folders(folder: Path) -> Iterator[tuple[Path, str, int]]:
    for path in sorted(folder.glob("*/seed*")):
        if path.is_dir() and path.name.removeprefix("seed").isdigit():
            yield path, path.parent.name, int(path.name.removeprefix("seed"))


def read_result(path: Path) -> dict[str, Any]:
    """The ``result.json`` of a run's folder, with ``metrics_by_dataset`` in any case.

    Raises:
        FileNotFoundError: the run is not finished.
        OSError, ValueError, KeyError, TypeError, AttributeError: the file is damaged.
    """
    result = json.loads((path / "result.json").read_text())
    by_set = result.get("metrics_by_dataset") or {result["dataset"]: result["metrics"]}
    if result["dataset"] not in by_set:
        raise ValueError(f"it holds no metrics of its dataset {result['dataset']}")
    for metrics in by_set.values():
        for value in [*(metrics[m] for m in METRICS), *metrics.get("IoU", {}).values()]:
            if not isinstance(value, (int, float, type(None))):
                raise ValueError(f"{value!r} is not a metric")
    return {**result, "metrics_by_dataset": by_set}


def _datasets(results: list[dict[str, Any]]) -> list[str]:
    """All test sets; the one most runs name as theirs comes first."""
    primary = pd.Series([r["dataset"] for r in results]).mode()[0]
    return list(dict.fromkeys([primary, *(name for r in results for name in r["metrics_by_dataset"])]))


def _scores(results: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for result in results:
        for name, metrics in result["metrics_by_dataset"].items():
            values = {m: metrics[m] for m in METRICS}
            yield {"run": result["run"], "seed": result["seed"], "dataset": name, **values}


def _class_iou(results: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for result in results:
        for name, metrics in result["metrics_by_dataset"].items():
            for label, value in metrics.get("IoU", {}).items():
                yield {
                    "run": result["run"],
                    "seed": result["seed"],
                    "dataset": name,
                    "class": label,
                    "IoU": value,
                }


def evaluations(path: Path, dataset: str) -> list[dict[str, Any]]:
    """mIoU over iterations. A resumed run repeats iterations: the later line is the one that counts."""
    found = {}
    for line in read_lines(path):
        # detectron2 leaves the set's name out when there is only one
        value = line.get(f"{dataset}/sem_seg/mIoU", line.get("sem_seg/mIoU"))
        if value is not None:
            found[line["iteration"]] = value
    return [{"iteration": i, "mIoU": found[i]} for i in sorted(found)]


def why_unfinished(path: Path) -> str:
    """What is known of a run without a result."""
    note = path / "error.txt"  # left by a study whose run failed
    if note.exists() and (lines := note.read_text().splitlines()):
        return f"failed: {lines[0]}"
    iterations = [line.get("iteration", 0) for line in read_lines(path / "metrics.json")]
    return f"last logged iteration {max(iterations)}" if iterations else "nothing logged"


def _not_started(seen: list[tuple[str, int]]) -> list[str]:
    """Seeds that some runs have and others do not even have a folder for; a teacher needs only one."""
    runs = sorted({run for run, _ in seen} - {TEACHER})
    seeds = sorted({seed for run, seed in seen if run != TEACHER})
    missing = [
        f"{run}, seed {seed}: no folder, though other runs have this seed."
        for run in runs
        for seed in seeds
        if (run, seed) not in seen
    ]
    return (
        missing
        if STUDENT in runs
        else [f"{STUDENT}: no run of this name, so no method can be judged.", *missing]
    )
