"""The pictures of a sweep beside those of a study."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from fakd.report.plots import png, styles
from fakd.report.results import STUDENT, Study

from .table import are_packed


def by_value(study: Study) -> bytes | None:
    """mIoU over every config key with several numbers, a panel per key; None where none varies."""
    runs = study.runs[["run", "seed", "values"]].merge(
        study.scores[study.scores["dataset"] == study.datasets[0]][["run", "seed", "mIoU"]],
        on=["run", "seed"],
    )
    keys = sorted({key for values in runs["values"] for key in values})
    panels = {key: frame for key in keys if (frame := _along(runs, key)) is not None}
    if not panels:
        return None
    figure = Figure(figsize=(6.5, 3.6 * len(panels)), layout="constrained")
    student = study.by_seed(STUDENT, study.datasets[0])
    for axes, (key, frame) in zip(
        figure.subplots(len(panels), squeeze=False)[:, 0], panels.items(), strict=True
    ):
        for method, rows in frame.groupby("method"):
            over = rows.groupby("value")["mIoU"]
            axes.errorbar(
                over.mean().index, over.mean(), yerr=over.std().fillna(0), marker="o", capsize=3, label=method
            )
        if len(student):
            axes.axhline(student.mean(), color="0.55", linestyle=":", label="student without help")
        axes.set_xlabel(key)
        axes.set_ylabel(f"mIoU on {study.datasets[0]}, %")
        axes.legend(frameon=False)
    return png(figure)


def _along(runs: pd.DataFrame, key: str) -> pd.DataFrame | None:
    """Rows with a number for ``key``: its value, mIoU, and which method it was."""
    rows = [
        {"value": float(values[key]), "mIoU": miou, "method": Path(run).name.split("-")[0]}
        for run, values, miou in zip(runs["run"], runs["values"], runs["mIoU"], strict=True)
        if isinstance(values.get(key), (int, float)) and not isinstance(values[key], bool)
    ]
    frame = pd.DataFrame(rows)
    return frame if len(frame) and frame["value"].nunique() > 1 else None


def over_time(study: Study) -> bytes | None:
    """mIoU over seconds of training, the mean over seeds; None where nobody was evaluated twice.

    None for packed students too, whose seconds are those of the whole pack.
    """
    if are_packed(study) or study.curves.groupby(["run", "seed"]).size().lt(2).all():
        return None
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, style in styles(study).items():
        points = study.curves[study.curves["run"] == name]
        mean = points.groupby("iteration", as_index=False)[["seconds", "mIoU"]].mean()
        axes.plot(mean["seconds"], mean["mIoU"], **style, label=name, markersize=3)
    axes.set_xlabel("seconds of training")
    axes.set_ylabel(f"mIoU on {study.datasets[0]}, %")
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    return png(figure)
