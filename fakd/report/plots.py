"""The pictures of a report, as PNG bytes on white."""

import io
import itertools
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib import color_sequences
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from matplotlib.transforms import Bbox, BboxBase

from .page import Picture
from .table import STUDENT, TEACHER, RunTable
from .tables import are_packed, classes

# Distinguishable for colour-blind readers; two greys are reserved for teacher and student.
_COLOURS = [to_rgb(color_sequences["petroff10"][i]) for i in (0, 2, 1, 4, 9, 5, 7, 6)]
# Beyond the eighth method they come again darker: bars have no other stroke that tells two methods apart.
_SHADES = (1.0, 0.65, 0.4, 0.2)
_STROKES = [("-", "o"), ("--", "s"), (":", "D"), ("-.", "^")]
# A method's place gives its colour in every report; those most often shown together come first.
_METHODS = (
    *("cwd", "fakd", "pd", "cwd_mmseg", "fakd_paper", "at", "cirkd", "dist"),
    *("skds", "ifvd", "dsd", "mgd", "fitnet", "dkd", "normalized_feature", "cwd_feature"),
    *("fakd_pd", "cwd_cirkd", "fakd_pd_paper", "skds_cirkd", "ifvd_cirkd", "cirkd_batch", "cirkd_voc", "jml"),
)
_MIN_SPAN = 5.0  # points of mIoU
_LONGEST_NAME = 20  # characters


def styles(table: RunTable) -> dict[str, dict[str, Any]]:
    """Colour, line and marker of each run: by its method's name, variants of one method paler in turn."""
    variants: dict[str, list[str]] = {}
    for name in table.names:
        variants.setdefault(_method(name), []).append(name)
    found = {}
    greys = {TEACHER: (0.1, 0.1, 0.1), STUDENT: (0.55, 0.55, 0.55)}
    for method, names in variants.items():
        place = _METHODS.index(method) if method in _METHODS else zlib.crc32(method.encode()) % 32
        place = 0 if method in greys else place
        shade = _SHADES[place // len(_COLOURS) % len(_SHADES)]
        shaded = tuple(shade * part for part in _COLOURS[place % len(_COLOURS)])
        colour = greys.get(method, shaded)
        for i, name in enumerate(names):
            line, marker = _STROKES[(place // len(_COLOURS) + i) % len(_STROKES)]
            pale = 0.65 * i / len(names)
            mixed = tuple(pale + (1 - pale) * part for part in colour)
            found[name] = {"color": mixed, "linestyle": line, "marker": marker}
    return {name: found[name] for name in table.names}


def colours(table: RunTable) -> dict[str, tuple]:
    """The colours of :func:`styles`."""
    return {name: style["color"] for name, style in styles(table).items()}


def _method(run: str) -> str:
    """That a run's name begins with, as in "fakd-lambda=2" and "fakd (LAMBDA 2)"."""
    return re.split(r"-| \(", Path(run).name)[0]


def png(figure: Figure) -> bytes:
    """The content of a png of the figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


def overview(table: RunTable) -> Iterator[Picture]:
    """A dot per seed, a bar at the mean, a row per run; nothing without a method.

    The teacher is left out, because its distance would hide the differences between methods. The axis
    spans at least five points, so that a tiny difference looks tiny.
    """
    dataset, palette = table.datasets[0], colours(table)
    for teacher in table.teachers:
        palette.pop(teacher)
    if not table.methods:
        return
    figure = Figure(figsize=(8, 0.7 + 0.32 * len(palette)), layout="constrained")
    axes = figure.subplots()
    for row, (name, colour) in enumerate(palette.items()):
        values = table.by_seed(name, dataset)
        axes.plot(values, [row] * len(values), "o", color=colour, alpha=0.6, markersize=8, markeredgewidth=0)
        if len(values) > 1:
            axes.plot([values.mean()], [row], "|", color=colour, markersize=16, markeredgewidth=2.5)
    student = table.by_seed(table.baseline, dataset)
    if len(student):
        axes.axvline(student.mean(), color=palette[table.baseline], linestyle=":", zorder=0)
    low, high = axes.get_xlim()
    widen = max(0.0, _MIN_SPAN - (high - low)) / 2
    axes.set_xlim(low - widen, high + widen)
    axes.set_yticks(range(len(palette)), list(palette))
    axes.set_ylim(len(palette) - 0.4, -0.6)
    axes.set_xlabel(f"mIoU on {dataset}, %")
    clean(axes)
    caption = f"A dot per seed, a bar at the mean; the dotted line is {table.reference}."
    yield Picture("overview", png(figure), caption)


def class_bars(table: RunTable) -> bytes:
    """IoU per class on the left, minus the baseline's on the right."""
    iou = classes(table)
    figure = Figure(figsize=(9, 1.2 + len(iou) * (0.1 + 0.09 * len(iou.columns))), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _grouped_bars(left, iou, table)
    left.set_xlabel("IoU, %")
    left.set_yticks(np.arange(len(iou)), iou.index)
    left.set_ylim(len(iou) - 0.4, -0.6)
    methods = [name for name in table.methods if name in iou]  # others were not tested here
    if table.baseline in iou and methods:
        gains = iou[methods].sub(iou[table.baseline], axis=0)
        _grouped_bars(right, gains, table)
        right.axvline(0, color="black", linewidth=0.8)
        right.set_xlabel(f"IoU minus that of {table.reference}, points")
    else:
        right.remove()
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=6, frameon=False)
    return png(figure)


def curves(table: RunTable) -> Iterator[Picture]:
    """mIoU while training, where a run was evaluated twice."""
    if not _is_curve(table.curves):
        return
    figure, axes = _wide(table, "iteration")
    for name, style in styles(table).items():
        points = table.curves[table.curves["run"] == name]
        seeds = points.pivot(index="iteration", columns="seed", values="mIoU")
        if seeds.shape[1] > 1:
            axes.plot(seeds, color=style["color"], alpha=0.3, linewidth=0.8)
        if not seeds.empty:
            mean = seeds.dropna().mean(axis=1)  # a mean of fewer seeds would jump
            axes.plot(mean, **style, label=name, linewidth=2, markersize=3)
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    caption = "mIoU at every evaluation: thin lines are seeds, thick ones their mean."
    yield Picture("curves", png(figure), caption)


def over_time(table: RunTable) -> Iterator[Picture]:
    """mIoU over seconds of training, where they are known and not those of several students in a pack."""
    points = table.curves.dropna(subset="seconds")
    if are_packed(table) or not _is_curve(points):
        return
    figure, axes = _wide(table, "seconds of training")
    for name, style in styles(table).items():
        by_iteration = points[points["run"] == name].groupby("iteration", as_index=False)
        mean = by_iteration[["seconds", "mIoU"]].mean()
        axes.plot(mean["seconds"], mean["mIoU"], **style, label=name, markersize=3)
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    yield Picture("time", png(figure), "mIoU over seconds of training; the mean over seeds.")


def by_value(table: RunTable) -> Iterator[Picture]:
    """mIoU over every config key with several numbers, a panel per key."""
    scores = table.scores[table.scores["dataset"] == table.datasets[0]][["run", "seed", "mIoU"]]
    runs = table.runs[["run", "seed", "values"]].merge(scores, on=["run", "seed"])
    keys = sorted({key for values in runs["values"] for key in values})
    panels = {key: frame for key in keys if (frame := _along(runs, key)) is not None}
    if not panels:
        return
    figure = Figure(figsize=(6.5, 3.6 * len(panels)), layout="constrained")
    student, palette = table.by_seed(table.baseline, table.datasets[0]), colours(table)
    rows = figure.subplots(len(panels), squeeze=False)[:, 0]
    for axes, (key, frame) in zip(rows, panels.items(), strict=True):
        for method, points in frame.groupby("method"):
            over = points.groupby("value")["mIoU"]
            error = over.std().fillna(0)
            colour = palette[points["run"].iloc[0]]
            axes.errorbar(
                over.mean().index, over.mean(), error, color=colour, marker="o", capsize=3, label=method
            )
        if len(student):
            axes.axhline(student.mean(), color="0.55", linestyle=":", label=table.reference)
        axes.set_xlabel(key)
        axes.set_ylabel(f"mIoU on {table.datasets[0]}, %")
        axes.legend(frameon=False)
        clean(axes, "both")
    yield Picture("values", png(figure), "mIoU over a config key; a bar per standard deviation.")


def _along(runs: pd.DataFrame, key: str) -> pd.DataFrame | None:
    """Rows with a number for ``key``: its value, mIoU, and which method it was."""
    rows = [
        {"value": float(values[key]), "mIoU": miou, "method": _method(run), "run": run}
        for run, values, miou in zip(runs["run"], runs["values"], runs["mIoU"], strict=True)
        if isinstance(values.get(key), (int, float)) and not isinstance(values[key], bool)
    ]
    frame = pd.DataFrame(rows)
    return frame if len(frame) and frame["value"].nunique() > 1 else None


def _is_curve(points: pd.DataFrame) -> bool:
    """Whether a run was evaluated twice."""
    return bool(points.groupby(["run", "seed"]).size().gt(1).any())


def _wide(table: RunTable, xlabel: str) -> tuple[Figure, Axes]:
    """For mIoU in training over something, with place for a long legend."""
    figure = Figure(figsize=(9, max(4, 0.2 * len(table.names))), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(f"mIoU on {table.curve_dataset}, %")
    clean(axes)
    return figure, axes


def label_points(axes: Axes, points: Mapping[str, tuple[float, float]], limit: int) -> None:
    """Writes names near their points, no two over each other: each at the nearest place that is free.

    A name that found none beside its point is tied to it by a line.

    Args:
        axes: whose scales and layout are final.
        points: (x, y) by name, those to be named first in front.
        limit: names at most.
    """
    size, point = 7.5, axes.figure.dpi / 72
    frame = axes.get_window_extent()
    places = {name: axes.transData.transform(xy) for name, xy in points.items()}
    taken = [Bbox.from_extents(*(xy - 3 * point), *(xy + 3 * point)) for xy in places.values()]
    for name, (x, y) in list(places.items())[:limit]:
        width, height = 0.56 * size * len(short(name)) * point, 1.1 * size * point
        for away, up in sorted(itertools.product(range(6), range(-8, 9)), key=lambda at: at[0] + abs(at[1])):
            gap = (5 + 12 * away) * point
            sides = (
                Bbox.from_bounds(a, y + (up - 0.5) * height, width, height)
                for a in (x + gap, x - gap - width)
            )
            free = [box for box in sides if _lies_in(frame, box) and not box.count_overlaps(taken)]
            if free:
                taken.append(free[0])
                place = axes.transData.inverted().transform((free[0].x0, y + up * height))
                line = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
                text = axes.annotate(
                    short(name),
                    points[name],
                    tuple(place),
                    va="center",
                    fontsize=size,
                    arrowprops=line if away or abs(up) > 1 else None,
                )
                text.set_in_layout(False)  # a long name may not squeeze the axes
                break


def _lies_in(frame: BboxBase, box: Bbox) -> bool:
    return frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1)


def short(name: str) -> str:
    """A name that fits beside a picture."""
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def _grouped_bars(axes: Axes, values: pd.DataFrame, table: RunTable) -> None:
    palette, height = colours(table), 0.8 / len(values.columns)
    for i, name in enumerate(values.columns):
        offset = (i - (len(values.columns) - 1) / 2) * height
        axes.barh(np.arange(len(values)) + offset, values[name], height, color=palette[name], label=name)
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


def clean(axes: Axes, grid: Literal["x", "y", "both"] = "x") -> None:
    """No frame on top and right, and a faint grid of one axis or "both"."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
