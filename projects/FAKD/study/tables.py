#!/usr/bin/env python3
"""The tables of docs/fakd_study.md, from kept runs.

python projects/FAKD/study/tables.py docs/results/runs/toyscenes_fakd_study.jsonl
"""

import argparse
import math

import pandas as pd
from scipy.stats import norm

from fakd.report.statistics import interval_text, mean_std, number, paired_difference, signed
from fakd.report.table import RunTable, read_tables

QUESTIONS = {
    "How large": ["fakd", "unit_0.25", "unit_0.5", "unit_1"],
    "Which offset": ["unit_0.5", "margin", "relative"],
    "Whose covariance": ["unit_0.5", "teacher_space", "within", "batch", "shrunk"],
    "With dropout": ["cwd_no_dropout", "unit_0.5", "unit_0.5_no_dropout"],
    "Gradient into the classifier": ["unit_0.5", "attached", "direction"],
}


def table_of(runs: RunTable, names: list[str], baseline: str, dataset: str) -> pd.DataFrame:
    """A row per run: seeds, mIoU, and its difference to the baseline at the same seeds with 95% interval."""
    rows = []
    for name in [baseline, *names]:
        values = runs.by_seed(name, dataset)
        found = paired_difference(values, runs.by_seed(baseline, dataset)) if name != baseline else None
        rows.append(
            {
                "run": name,
                "seeds": len(values),
                "mIoU": mean_std(values),
                f"minus {baseline}": "" if found is None else signed(found.mean),
                "95% interval": interval_text(found),
            }
        )
    return pd.DataFrame(rows).set_index("run")


def seeds_needed(std: float, difference: float) -> int:
    """Seeds at which a two-sided paired test at 5 % finds a difference in four of five cases (normal)."""
    return math.ceil(((norm.ppf(0.975) + norm.ppf(0.8)) * std / difference) ** 2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", help="files of kept lines, or folders")
    parser.add_argument("--baseline", default="cwd_mmseg", help="default: %(default)s")
    given = parser.parse_args()
    (runs,), _ = read_tables(given.runs)
    (dataset,) = runs.datasets
    reference = runs.by_seed(given.baseline, dataset)
    for question, names in QUESTIONS.items():
        known = [name for name in names if name in runs.methods]
        print(f"## {question}\n\n{table_of(runs, known, given.baseline, dataset).to_markdown()}\n")
    others = [runs.by_seed(name, dataset) for name in runs.methods if name not in (given.baseline, "student")]
    stds = [found.std for each in others if (found := paired_difference(each, reference)) is not None]
    typical = pd.Series(stds).median()
    print(
        f"Median deviation of a difference to {given.baseline}: {number(typical)} points. Seeds that would "
        "show a difference of "
        + ", ".join(f"{step}: {seeds_needed(typical, step)}" for step in (0.5, 1.0, 2.0))
        + " points."
    )


if __name__ == "__main__":
    main()
