#!/usr/bin/env python3
"""The tables of docs/fakd_study.md, from kept runs.

python projects/FAKD/study/tables.py docs/results/runs/toyscenes_fakd_study.jsonl
python projects/FAKD/study/tables.py docs/results/runs/camvid_few.jsonl --dataset camvid_test
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


def gap_table(runs: RunTable, dataset: str) -> pd.DataFrame:
    """A row per run: mIoU on the pictures it was trained on, on the first test set, and their difference.

    ``dataset`` is the training set, which was tested on as well.
    """
    rows = []
    for name in runs.names:
        seen, unseen = runs.by_seed(name, dataset), runs.by_seed(name, runs.datasets[0])
        rows.append(
            {
                "run": name,
                f"mIoU on {dataset}": mean_std(seen),
                f"on {runs.datasets[0]}": mean_std(unseen),
                "difference": mean_std(seen - unseen),
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
    parser.add_argument("--dataset", default="", metavar="NAME", help="test set (default: the first)")
    given = parser.parse_args()
    found, _ = read_tables(given.runs)
    for runs in found:
        dataset = given.dataset or runs.datasets[0]
        trained = [name for name in runs.datasets if name.endswith("_train")]
        asked = {runs.label: runs.names} if trained else QUESTIONS
        for title, names in asked.items():
            listed = [name for name in names if name in {runs.baseline, *runs.methods} - {given.baseline}]
            print(f"## {title}\n\n{table_of(runs, listed, given.baseline, dataset).to_markdown()}\n")
        for name in trained:
            print(f"{gap_table(runs, name).to_markdown()}\n")
        print(f"{_power(runs, given.baseline, dataset)}\n")


def _power(runs: RunTable, baseline: str, dataset: str) -> str:
    """What differences the seeds could show."""
    reference = runs.by_seed(baseline, dataset)
    others = [runs.by_seed(name, dataset) for name in runs.methods if name not in (baseline, "student")]
    stds = [found.std for each in others if (found := paired_difference(each, reference)) is not None]
    typical = pd.Series(stds).median()
    steps = ", ".join(f"{step}: {seeds_needed(typical, step)}" for step in (0.5, 1.0, 2.0))
    return (
        f"Median deviation of a difference to {baseline}: {number(typical)} points. Seeds that would show a "
        f"difference of {steps} points."
    )


if __name__ == "__main__":
    main()
