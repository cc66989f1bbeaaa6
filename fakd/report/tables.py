"""The tables of a report, as texts ready to print."""

import math
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from .results import METRICS, Study
from .statistics import Difference, difference_text, interval_text, mean_std, paired_difference

NOTHING = "–"

# column -> (field of result.json, how its mean over runs is printed)
_COST: dict[str, tuple[str, Callable[[float], str]]] = {
    "parameters": ("params", lambda count: f"{count / 1e6:.3g} M"),
    "GFLOPs": ("gflops", lambda count: f"{count:.3g}"),
    "s/iteration": ("seconds_per_iteration", lambda seconds: f"{seconds:.3f}"),
    "wall-clock": ("wall_clock", lambda seconds: f"{seconds / 60:.1f} min"),
    "peak memory": ("peak_memory_mb", lambda size: f"{size:.0f} MB"),
}


def summary(study: Study, dataset: str) -> pd.DataFrame:
    """A row per run, seeds taken together, on one test set."""
    rows = []
    for name in study.names:
        seeds = study.runs.loc[study.runs["run"] == name, "seed"]
        difference, scores = _compare(study, name, dataset, seeds)
        interval = interval_text(difference) if name in study.methods else ""
        head = {"run": name, "seeds": str(len(seeds))}
        rows.append(head | scores | {"95% interval": interval})
    columns = ["run", "seeds", "mIoU", f"vs {study.baseline}", "95% interval", *METRICS[1:]]
    return pd.DataFrame(rows)[columns]


def cost(study: Study) -> pd.DataFrame:
    """A row per run: size and effort, in the mean over seeds."""
    return pd.DataFrame({"run": n} | _cost(study.runs[study.runs["run"] == n]) for n in study.names)


def every_run(study: Study) -> pd.DataFrame:
    """A row per run and seed: what it reached, a group of columns per test set, and what it cost."""
    rows = []
    for name in study.names:
        for seed, runs in study.runs[study.runs["run"] == name].groupby("seed"):
            row = {"run": name, "seed": str(seed)}
            for dataset in study.datasets:
                suffix = f" ({dataset})" if len(study.datasets) > 1 else ""
                scores = _compare(study, name, dataset, runs["seed"])[1]
                row |= {f"{label}{suffix}": text for label, text in scores.items()}
            rows.append(row | _cost(runs))
    return pd.DataFrame(rows)


def pairs(study: Study) -> pd.DataFrame:
    """Every method against every other, by mIoU on the primary test set."""
    dataset, rows = study.datasets[0], []
    for second, first in combinations(study.methods, 2):
        difference = paired_difference(study.by_seed(first, dataset), study.by_seed(second, dataset))
        shared = str(difference.num_seeds) if difference else "0"
        rows.append((f"{first} − {second}", difference_text(difference), interval_text(difference), shared))
    return pd.DataFrame(rows, columns=["pair", "difference", "95% interval", "shared seeds"])


def classes(table: pd.DataFrame) -> pd.DataFrame:
    """Texts of a table of IoU per class and run."""
    return table.map(lambda iou: NOTHING if pd.isna(iou) else f"{iou:.2f}").reset_index(names="class")


def protocol(study: Study) -> pd.DataFrame:
    """A row per run and seed: everything needed to know what was run, and where."""
    return pd.DataFrame(
        {
            "run": run["run"],
            "seed": str(run["seed"]),
            "config": _shown(_relative(run.get("config_file"))),
            "trained on": _shown(run.get("train_dataset")),
            "iterations": _shown(run.get("iterations")),
            "batch": _shown(run.get("batch_size")),
            "crop": size_text(run.get("crop")),
            "commit": _shown(run.get("commit")),
            "machine": _shown(run.get("machine")),
            "versions": _shown(run.get("versions")),
            "finished": _shown(run.get("finished")),
        }
        for name in study.names
        for run in study.runs[study.runs["run"] == name].to_dict("records")
    )


def circumstances(study: Study) -> str:
    """What all runs share in one line; where they differ, every value."""

    def values(key: str, text: Callable[[Any], str] = _shown) -> str:
        column = study.runs[key] if key in study.runs else pd.Series([None])
        return " or ".join(dict.fromkeys(text(value) for value in column))

    return (
        f"Trained on {values('train_dataset')}, {values('iterations')} iterations of {values('batch_size')} "
        f"images, crop {values('crop', size_text)}. Commit {values('commit')}, on {values('machine')}."
    )


def size_text(size: Any) -> str:
    """ "96x128" of (height, width)."""
    return "x".join(str(n) for n in size) if isinstance(size, (list, tuple)) else NOTHING


def _compare(
    study: Study, name: str, dataset: str, seeds: pd.Series
) -> tuple[Difference | None, dict[str, str]]:
    """The difference of a method to the baseline over some seeds, and all scores as texts."""
    values = {m: study.by_seed(name, dataset, m) for m in METRICS}
    values = {m: column[column.index.isin(seeds)] for m, column in values.items()}
    difference, shown = None, ""
    if name in study.methods:
        difference = paired_difference(values["mIoU"], study.by_seed(study.baseline, dataset))
        shown = difference_text(difference)
    return difference, {
        "mIoU": mean_std(values["mIoU"]),
        f"vs {study.baseline}": shown,
        **{m: mean_std(values[m]) for m in METRICS[1:]},
    }


def _cost(runs: pd.DataFrame) -> dict[str, str]:
    cells = {}
    for label, (key, text) in _COST.items():
        mean = pd.to_numeric(runs[key], errors="coerce").mean() if key in runs else math.nan
        cells[label] = NOTHING if pd.isna(mean) else text(mean)
    return cells


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    if value is None or value == "" or value != value:
        return NOTHING
    return (
        f"{value:.0f}" if isinstance(value, float) else str(value)
    )  # pandas makes floats of integers with gaps


def _relative(path: object) -> object:
    """A file's path from here, if it lies below: workers of a sweep write whole paths."""
    if isinstance(path, str) and Path(path).is_relative_to(Path.cwd()):
        return str(Path(path).relative_to(Path.cwd()))
    return path
