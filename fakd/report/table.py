"""The table of a sweep: a row per pair and run, at equal iterations and time, beside a paper's numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from scipy.stats import ttest_1samp

from fakd.report.results import STUDENT, TEACHER, Study

from .statistics import interval_text, paired_difference, signed

NOTE = (
    "Percent; mean ± sample standard deviation over seeds. **vs student**: difference to the same student "
    "without help, seed by seed, with its 95% interval; p is that of the paired t-test (two-sided). **Equal "
    "iterations** and **equal time** read every run's mIoU at the last evaluation within the iterations, and "
    "within the seconds of training, that all runs of the pair had; – where none was made by then, or "
    "where students were packed: their time and memory are those of the whole pack. **Paper**: what the "
    "paper reports for this run."
)


def table(study: Study, pair: str, paper: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Numbers of every run of a pair."""
    dataset = study.datasets[0]
    student = study.by_seed(STUDENT, dataset)
    pupils = [name for name in study.names if name != TEACHER]
    ends = (
        study.curves[study.curves["run"].isin(pupils)]
        .groupby(["run", "seed"])[["iteration", "seconds"]]
        .max()
    )
    limits = ends.min() if len(ends) else pd.Series({"iteration": math.nan, "seconds": math.nan})
    if are_packed(study):
        limits["seconds"] = math.nan  # their seconds are also those of the others in the pack
    rows = []
    for name in study.names:
        values = study.by_seed(name, dataset)
        runs = study.runs[study.runs["run"] == name]
        difference = paired_difference(values, student) if name in study.methods else None
        rows.append(
            {
                "pair": pair,
                "run": name,
                "seeds": len(values),
                "mIoU": values.mean(),
                "std": values.std(),
                "mAcc": study.by_seed(name, dataset, "mAcc").mean(),
                "vs student": difference.mean if difference else math.nan,
                "95% interval": interval_text(difference),
                "p": paired_p(values, student) if difference else math.nan,
                "equal iterations": _at(study, name, "iteration", limits["iteration"]),
                "equal time": _at(study, name, "seconds", limits["seconds"]),
                "minutes": runs["wall_clock"].mean() / 60,
                "memory MB": pd.to_numeric(runs["peak_memory_mb"]).mean(),
                "paper mIoU": paper.get(name, {}).get("mIoU", math.nan),
                "paper mAcc": paper.get(name, {}).get("mAcc", math.nan),
            }
        )
    return pd.DataFrame(rows)


def are_packed(study: Study) -> bool:
    """Whether some students shared a process, and so its time."""
    return "packed" in study.runs and bool((study.runs["packed"] > 1).any())


def _at(study: Study, name: str, axis: str, limit: float) -> float:
    """Mean mIoU of the seeds at the last evaluation not after ``limit``; nan unless every seed has one."""
    points = study.curves[study.curves["run"] == name]
    within = points[points[axis] <= limit].sort_values(axis).groupby("seed")["mIoU"].last()
    return within.mean() if name != TEACHER and len(within) == points["seed"].nunique() else math.nan


def paired_p(values: pd.Series, reference: pd.Series) -> float:
    """Two-sided p of the paired t-test over the seeds both have; nan for fewer than two."""
    differences = (values - reference).dropna()
    if len(differences) < 2:
        return math.nan
    if differences.std() == 0:  # where the statistic is not defined
        return 1.0 if differences.mean() == 0 else 0.0
    return float(ttest_1samp(differences, 0.0).pvalue)


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table as texts."""
    return pd.DataFrame([_texts(row) for row in table.to_dict("records")]).loc[
        :, lambda texts: ~texts.isin(["–", ""]).all()
    ]


def _texts(row: Mapping[str, Any]) -> dict[str, str]:
    spread = f" ± {row['std']:.2f}" if row["seeds"] > 1 else " (1 seed)"
    p = "" if math.isnan(row["p"]) else f"{row['p']:.3f}"
    return {
        "pair": row["pair"],
        "run": row["run"],
        "mIoU": _number(row["mIoU"]) + spread,
        "mAcc": _number(row["mAcc"]),
        "vs student": "" if math.isnan(row["vs student"]) else signed(row["vs student"]),
        "95% interval": row["95% interval"],
        "p": p,
        "equal iterations": _number(row["equal iterations"]),
        "equal time": _number(row["equal time"]),
        "wall-clock": f"{row['minutes']:.1f} min",
        "peak memory": "–" if math.isnan(row["memory MB"]) else f"{row['memory MB']:.0f} MB",
        "paper mIoU": _number(row["paper mIoU"]),
        "paper mAcc": _number(row["paper mAcc"]),
    }


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def latex(table: pd.DataFrame) -> str:
    """The table as a LaTeX ``tabular`` that needs no package."""
    special = {"%": r"\%", "_": r"\_", "±": r"$\pm$", "–": "--", "−": "$-$", "&": r"\&"}

    def text(cell: object) -> str:
        return "".join(special.get(character, character) for character in str(cell))

    texts = shown(table)
    lines = [" & ".join(map(text, row)) + r" \\" for row in [texts.columns, *texts.to_numpy()]]
    body = "\n".join([r"\hline", lines[0], r"\hline", *lines[1:], r"\hline"])
    align = "".join("l" if name in ("pair", "run") else "r" for name in texts)
    return f"\\begin{{tabular}}{{{align}}}\n{body}\n\\end{{tabular}}\n"
