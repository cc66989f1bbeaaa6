"""Plots of the gains per class: hard and easy, frequent and rare classes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from .page import Picture
from .plots import class_bars, clean, colours, label_points, plain_log, png, short, styles
from .statistics import signed
from .table import RunTable

_MANY_CLASSES, _MANY_RUNS = 40, 12  # from these counts on a heat map replaces the bars
_NAMED = 20  # classes whose names fit below an axis
_PER_COLUMN = 50  # classes below each other in a map


def gains(table: RunTable, iou: pd.DataFrame) -> pd.DataFrame:
    """IoU minus the baseline's, in points: a row per class, a column per method.

    Args:
        iou: of :func:`fakd.report.tables.classes`.
    """
    return iou[[m for m in table.methods if m in iou]].sub(iou[table.baseline], axis=0)


def by_difficulty(table: RunTable, iou: pd.DataFrame) -> pd.DataFrame:
    """:func:`gains` from the hardest class to the easiest, by the baseline's IoU; none without a label."""
    return gains(table, iou).loc[iou[table.baseline].dropna().sort_values(kind="stable").index]


def halves(ordered: pd.DataFrame) -> pd.DataFrame:
    """Mean gain over the first half of the classes ("hard") and the others ("easy"): a row per method."""
    middle = len(ordered) // 2
    return pd.DataFrame({"hard": ordered[:middle].mean(), "easy": ordered[middle:].mean()})


def difficulty(table: RunTable, iou: pd.DataFrame) -> bytes:
    """A panel per method: its gain in every class, hardest first, and the mean of each half."""
    ordered = by_difficulty(table, iou)
    means, middle = halves(ordered), len(ordered) // 2
    named = len(ordered) <= _NAMED
    figure, panels = _panels(table, ordered, bottom=1.0 if named else 0.3)
    positions = np.arange(len(ordered))
    for axes, method, colour in panels:
        axes.bar(positions, ordered[method], 0.8, color=colour)
        axes.axvline(middle - 0.5, color="0.6", linewidth=0.8, linestyle=":")
        ends = {"hard": (-0.5, middle - 0.5), "easy": (middle - 0.5, len(ordered) - 0.5)}
        for half, (left, right) in ends.items():
            axes.plot([left, right], [means.loc[method, half]] * 2, color="black", linewidth=1.6)
        said = "   ".join(f"{half} {signed(means.loc[method, half])}" for half in ends)
        axes.set_title(f"{method}\n{said}", fontsize=9)
        axes.set_xlim(-0.5, len(ordered) - 0.5)
        axes.set_xticks(positions if named else [], ordered.index if named else [], rotation=90, fontsize=8)
    figure.supxlabel(f"classes, the hardest for {table.baseline} first", fontsize=9)
    figure.supylabel(f"IoU minus that of {table.baseline}, points", fontsize=9)
    return png(figure)


def long_tail(table: RunTable, iou: pd.DataFrame, shares: pd.Series) -> bytes:
    """A panel per method: its gain over the share of labelled pixels, a dot per class.

    Args:
        shares: by class, in percent of all labelled pixels.
    """
    gained = gains(table, iou)[shares[iou.index] > 0]
    figure, panels = _panels(table, gained, bottom=0.3)
    named = []
    for axes, method, colour in panels:
        values, x = gained[method].dropna(), shares[gained[method].dropna().index]
        axes.scatter(x, values, s=26 if len(values) <= _NAMED else 14, color=colour, linewidths=0)
        plain_log(axes, "x", x)
        axes.set_title(method, fontsize=9)
        axes.margins(0.12, 0.15)
        order = values.abs().sort_values(ascending=False).index
        named.append((axes, {name: (x[name], values[name]) for name in order}))
    figure.supxlabel("share of the labelled pixels of the test set, %", fontsize=9)
    figure.supylabel(f"IoU minus that of {table.baseline}, points", fontsize=9)
    figure.draw_without_rendering()  # now the layout is final
    for axes, points in named:
        label_points(axes, points, _NAMED)
    return png(figure)


def rank_correlations(table: RunTable, iou: pd.DataFrame, shares: pd.Series) -> pd.Series:
    """Spearman's correlation of gain and share of pixels, by method."""
    gained = gains(table, iou)
    return gained.rank().corrwith(shares[gained.index].rank())


def per_class(table: RunTable, iou: pd.DataFrame) -> Picture:
    """IoU of every class and run: bars, or cells where these would be too many."""
    if not table.methods or (len(iou) < _MANY_CLASSES and iou.shape[1] < _MANY_RUNS):
        caption = f"IoU per class, mean over seeds; on the right minus that of {table.reference}."
        return Picture("iou_per_class", class_bars(table), caption)
    caption = f"IoU minus that of {table.reference}, mean over seeds: orange is worse, purple better."
    return Picture("iou_per_class", class_map(table, iou), caption)


def class_map(table: RunTable, iou: pd.DataFrame) -> bytes:
    """For many classes: a cell per class and run, coloured by its IoU minus the baseline's."""
    gained = gains(table, iou)
    limit = max(1.0, np.nanpercentile(gained.abs(), 98))
    blocks = -(-len(gained) // _PER_COLUMN)
    figure = Figure(
        figsize=(blocks * (1.6 + 0.28 * gained.shape[1]), 1.6 + 0.17 * min(len(gained), _PER_COLUMN)),
        layout="constrained",
    )
    norm = TwoSlopeNorm(0, -limit, limit)
    all_axes = figure.subplots(1, blocks, squeeze=False)[0]
    for i, axes in enumerate(all_axes):
        part = gained[i * _PER_COLUMN : (i + 1) * _PER_COLUMN]
        image = axes.imshow(part, cmap="PuOr", norm=norm, aspect="auto")
        axes.set_yticks(range(len(part)), [short(name) for name in part.index], fontsize=7)
        axes.set_xticks(range(part.shape[1]), part.columns, rotation=90, fontsize=8)
        axes.set_ylim(_PER_COLUMN - 0.5 if blocks > 1 else len(part) - 0.5, -0.5)
        axes.spines[:].set_visible(False)
    label = f"IoU minus that of {table.baseline}, points"
    figure.colorbar(image, ax=all_axes, location="top", shrink=0.5, aspect=40, extend="both", label=label)
    return png(figure)


def confusion_rates(counts: np.ndarray) -> np.ndarray:
    """(K, K) in percent of the row: how often a label was predicted as each class; nan without a label."""
    with np.errstate(invalid="ignore"):
        return 100 * counts / counts.sum(axis=1, keepdims=True)


def changed_confusions(
    rates: dict[str, np.ndarray], table: RunTable, classes: list[str], count: int
) -> pd.DataFrame:
    """The pairs of classes whose confusion changed most in any method, a row each, largest change first.

    Args:
        rates: by run, in percent, see :func:`confusion_rates`.
        table: the baseline's name is in it.
        classes: names of the K classes.
        count: rows at most.

    Returns:
        Columns "label", "taken for", the baseline's rate, and per method its rate minus that, in points.
    """
    columns = {table.baseline: rates[table.baseline]}
    columns |= {name: rates[name] - rates[table.baseline] for name in table.methods if name in rates}
    pairs = pd.DataFrame({n: pd.DataFrame(r, classes, classes).stack() for n, r in columns.items()})
    pairs = pairs.rename_axis(["label", "taken for"]).reset_index()
    pairs["largest"] = pairs[list(columns)[1:]].abs().max(axis=1)
    changed = pairs[(pairs["label"] != pairs["taken for"]) & (pairs["largest"] > 0)]
    changed = changed.sort_values("largest", ascending=False, kind="stable", ignore_index=True)
    return changed.drop(columns="largest").head(count)


def confusions(table: RunTable, changes: pd.DataFrame) -> bytes:
    """The changes of :func:`changed_confusions`: a row per pair, a dot per method."""
    figure = Figure(figsize=(8, 1.1 + 0.26 * len(changes)), layout="constrained")
    axes = figure.subplots()
    methods = [m for m in table.methods if m in changes]
    for i, method in enumerate(methods):
        rows = np.arange(len(changes)) + 0.5 * ((i + 0.5) / len(methods) - 0.5)
        style = styles(table)[method] | {"linestyle": ""}
        axes.plot(changes[method], rows, **style, label=method, markersize=6)
    axes.axvline(0, color="black", linewidth=0.8)
    names = changes["label"].map(short) + " taken for " + changes["taken for"].map(short)
    axes.set_yticks(range(len(changes)), names, fontsize=8)
    axes.set_ylim(len(changes) - 0.5, -0.5)
    axes.set_xlabel(
        f"pixels of the label so mistaken, minus those in {table.baseline}, points (left is better)"
    )
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    clean(axes, "both")
    return png(figure)


def _panels(
    table: RunTable, gained: pd.DataFrame, bottom: float
) -> tuple[Figure, list[tuple[Axes, str, tuple]]]:
    """A figure with a panel per column, and (axes, column, colour) of each."""
    count, palette = len(gained.columns), colours(table)
    columns = min(4, count)
    rows = -(-count // columns)
    width = 3.6 if columns < 3 else 2.7
    size = (0.4 + width * columns, 0.4 + (2.0 + bottom) * rows)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes in grid[:count]:
        axes.axhline(0, color="black", linewidth=0.8)
        clean(axes, "y")
    for axes in grid[max(0, count - columns) : count]:
        axes.tick_params(labelbottom=True)  # also where the panel below is missing
    for axes in grid[count:]:
        axes.set_visible(False)
    return figure, [(axes, name, palette[name]) for axes, name in zip(grid, gained, strict=False)]
