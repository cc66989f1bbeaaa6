"""The pictures of a report, as PNG bytes on white."""

import io
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib import color_sequences
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from .results import TEACHER, Study

# Told apart by colour-blind readers too; the two greys are left to the baseline.
_METHOD_COLOURS = [to_rgb(color_sequences["petroff10"][i]) for i in (0, 2, 1, 4, 9, 5, 7, 6)]

_MIN_SPAN = 5.0  # points of mIoU


def colours(study: Study) -> dict[str, tuple]:
    """One colour per run, the same in every picture: black teacher, grey baseline."""
    fixed: dict[str, tuple] = {TEACHER: (0.1, 0.1, 0.1), study.baseline: (0.55, 0.55, 0.55)}
    methods: dict[str, tuple] = {
        m: _METHOD_COLOURS[i % len(_METHOD_COLOURS)] for i, m in enumerate(study.methods)
    }
    return {name: (fixed | methods)[name] for name in study.names}


def styles(study: Study) -> dict[str, dict[str, Any]]:
    """How each run's line or dots are drawn: its colour, and other strokes once all colours are taken."""
    turns = {name: i // len(_METHOD_COLOURS) for i, name in enumerate(study.methods)}
    return {
        name: {
            "color": colour,
            "linestyle": ("-", "--", ":")[turns.get(name, 0) % 3],
            "marker": "osD"[turns.get(name, 0) % 3],
        }
        for name, colour in colours(study).items()
    }


def png(figure: Figure) -> bytes:
    """The content of a png of the figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


def overview(study: Study) -> bytes | None:
    """A dot per seed, a bar at the mean, a row per run; None without a method.

    The teacher is left out: it is so far off that it would squeeze all differences into nothing. The axis
    spans at least five points, so that a tiny difference looks tiny.
    """
    dataset, palette = study.datasets[0], colours(study)
    palette.pop(TEACHER, None)
    if not study.methods:
        return None
    figure = Figure(figsize=(8, 0.7 + 0.32 * len(palette)), layout="constrained")
    axes = figure.subplots()
    for row, (name, colour) in enumerate(palette.items()):
        values = study.by_seed(name, dataset)
        axes.plot(values, [row] * len(values), "o", color=colour, alpha=0.6, markersize=8, markeredgewidth=0)
        if len(values) > 1:
            axes.plot([values.mean()], [row], "|", color=colour, markersize=16, markeredgewidth=2.5)
    student = study.by_seed(study.baseline, dataset)
    if len(student):
        axes.axvline(student.mean(), color=palette[study.baseline], linestyle=":", zorder=0)
    low, high = axes.get_xlim()
    widen = max(0.0, _MIN_SPAN - (high - low)) / 2
    axes.set_xlim(low - widen, high + widen)
    axes.set_yticks(range(len(palette)), list(palette))
    axes.set_ylim(len(palette) - 0.4, -0.6)
    axes.set_xlabel(f"mIoU on {dataset}, %")
    clean(axes)
    return png(figure)


def class_bars(study: Study, table: pd.DataFrame) -> bytes:
    """A :func:`class_table` on the left, its difference to the baseline on the right."""
    figure = Figure(figsize=(9, 1.2 + len(table) * (0.1 + 0.09 * len(table.columns))), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _grouped_bars(left, table, study)
    left.set_xlabel("IoU, %")
    left.set_yticks(np.arange(len(table)), table.index)
    left.set_ylim(len(table) - 0.4, -0.6)
    if study.baseline in table and study.methods:
        gains = table[[m for m in study.methods if m in table]].sub(table[study.baseline], axis=0)
        _grouped_bars(right, gains, study)
        right.axvline(0, color="black", linewidth=0.8)
        right.set_xlabel(f"IoU minus that of {study.reference}, points")
    else:
        right.remove()
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=6, frameon=False)
    return png(figure)


def class_table(study: Study) -> pd.DataFrame:
    """Mean IoU over seeds on the primary test set: a row per class as in the dataset, a column per run."""
    iou = study.iou[study.iou["dataset"] == study.datasets[0]]
    table = iou.pivot_table(
        index="class", columns="run", values="IoU", aggfunc="mean", sort=False, dropna=False
    )
    return table.astype(float)[[n for n in study.names if n in table]]


def curves(study: Study) -> bytes | None:
    """mIoU while training, thin per seed and thick in the mean; None where nobody was evaluated twice."""
    if study.curves.groupby(["run", "seed"]).size().lt(2).all():
        return None
    figure = Figure(figsize=(9, max(4, 0.2 * len(study.names))), layout="constrained")
    axes = figure.subplots()
    for name, style in styles(study).items():
        table = study.curves[study.curves["run"] == name].pivot(
            index="iteration", columns="seed", values="mIoU"
        )
        if table.shape[1] > 1:
            axes.plot(table, color=style["color"], alpha=0.3, linewidth=0.8)
        if not table.empty:
            mean = table.dropna().mean(axis=1)  # a mean of fewer seeds would jump
            axes.plot(mean, **style, label=name, linewidth=2, markersize=3)
    axes.set_xlabel("iteration")
    axes.set_ylabel(f"mIoU on {study.datasets[0]}, %")
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    clean(axes)
    return png(figure)


def _grouped_bars(axes: Axes, table: pd.DataFrame, study: Study) -> None:
    names: Sequence[str] = list(table.columns)
    height = 0.8 / len(names)
    for i, name in enumerate(names):
        offset = (i - (len(names) - 1) / 2) * height
        axes.barh(np.arange(len(table)) + offset, table[name], height, color=colours(study)[name], label=name)
    clean(axes)


def plain_log(axes: Axes, name: str, values: Iterable[float]) -> None:
    """A logarithmic axis, "x" or "y", with ticks written as 0.5 or 20, as many as the values need."""
    axis = axes.xaxis if name == "x" else axes.yaxis
    decades = np.ptp(np.log10([v for v in values if v > 0] or [1.0]))
    axes.set(**{f"{name}scale": "log"})
    axis.set_major_locator(
        LogLocator(subs=(1,) if decades > 2 else (1, 2, 5) if decades > 0.5 else range(1, 10))
    )
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def clean(axes: Axes, grid: Literal["both", "x", "y"] = "x") -> None:
    """No frame on top and right, and a faint grid of one axis or "both"."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
