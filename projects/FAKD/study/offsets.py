#!/usr/bin/env python3
"""Offsets of every class's own and other logits over training, beside what the class gained over CWD.

  python projects/FAKD/study/offsets.py output/fakd_study --run unit_1 --output docs/results/fakd_study

writes offsets.md and offsets.png from the runs of projects/FAKD/sweeps/toyscenes_fakd_study.yaml.
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from scipy.stats import spearmanr

from fakd.files import atomic_write


def offsets_of(run: Path) -> pd.DataFrame:
    """Columns iteration, own/<k>, other/<k>: what KD.FAKDStudy logged."""
    rows = [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]
    frame = pd.DataFrame([row for row in rows if "FAKDStudy/own/0" in row])
    prefix = "FAKDStudy/"
    columns = {name: name.removeprefix(prefix) for name in frame if name.startswith((f"{prefix}o",))}
    return frame[["iteration", *columns]].rename(columns=columns)


def iou_of(run: Path) -> pd.Series:
    """IoU in percent of every class on the first test set."""
    return pd.Series(json.loads((run / "result.json").read_text())["metrics"]["IoU"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, help="folder of the sweep")
    parser.add_argument("--run", default="unit_1", help="of FAKDStudy (default: %(default)s)")
    parser.add_argument("--baseline", default="cwd_mmseg", help="default: %(default)s")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    seeds = [
        path.parent.name
        for path in sorted((given.study / "runs" / given.run).glob("seed*/result.json"))
        if (given.study / "runs" / given.baseline / path.parent.name / "result.json").exists()
    ]
    if not seeds:
        parser.error(f"no seed of {given.run} and {given.baseline} is finished in {given.study}")
    runs = [given.study / "runs" / given.run / seed for seed in seeds]
    baselines = [given.study / "runs" / given.baseline / seed for seed in seeds]
    courses = sum(offsets_of(run).set_index("iteration") for run in runs) / len(runs)
    gain = sum(iou_of(a) - iou_of(b) for a, b in zip(runs, baselines, strict=True)) / len(runs)
    last = courses.iloc[-1]
    table = pd.DataFrame(
        {
            "own": [last[f"own/{k}"] for k in range(len(gain))],
            "other": [last[f"other/{k}"] for k in range(len(gain))],
            "IoU minus CWD's": gain.to_numpy(),
        },
        index=pd.Index(gain.index, name="class"),
    )
    table.insert(2, "own - other", table["own"] - table["other"])
    found = spearmanr(table["own - other"], table["IoU minus CWD's"])
    given.output.mkdir(parents=True, exist_ok=True)
    text = table.round(2).to_markdown() + (
        f"\n\nMeans over {len(seeds)} seeds of `{given.run}` at the end of training; over classes: own "
        f"{table['own'].mean():.2f}, other {table['other'].mean():.2f}. Rank correlation of own - other with "
        f"the difference to `{given.baseline}`: {found.statistic:+.2f} (p {found.pvalue:.2f}).\n"
    )
    with atomic_write(given.output / "offsets.md", "w") as file:
        file.write(text)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for kind in ("own", "other"):
        mean = courses.filter(regex=f"^{kind}/").mean(axis=1)
        axes[0].plot(mean.index, mean, label=f"{kind} logit")
    axes[0].set(xlabel="iteration", ylabel="offset v, mean over classes")
    axes[0].legend()
    axes[1].axhline(0, color="grey", linewidth=0.8)
    axes[1].scatter(table["own - other"], table["IoU minus CWD's"])
    for name, row in table.iterrows():
        axes[1].annotate(str(name), (row["own - other"], row["IoU minus CWD's"]), fontsize=7)
    axes[1].set(xlabel="own - other offset at the end", ylabel=f"IoU minus {given.baseline}'s")
    with atomic_write(given.output / "offsets.png") as file:
        figure.savefig(file, dpi=120, format="png")
    print(text)


if __name__ == "__main__":
    main()
