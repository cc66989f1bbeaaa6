"""Plots of what runs logged during training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd
from matplotlib import color_sequences
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .page import Picture
from .plots import clean, plain_log, png, styles
from .table import RunTable

_FIRST = ("total_loss", "loss_seg", "loss_aux")
_SPREAD = {"trace": "trace", "eigenvalue": "largest eigenvalue"}
_HIGHLIGHTED = 5  # classes with a colour of their own


def logged(table: RunTable) -> Iterator[Picture]:
    """A panel per loss, per number a loss logs (as its lambda) and for the learning rate, if any is logged.

    Thin lines are seeds, thick ones their mean.
    """
    columns = dict.fromkeys(column for logs in table.logs.values() for log in logs.values() for column in log)
    names = [name for name in _FIRST if name in columns]
    names += sorted(name for name in columns if name.startswith("loss_") and name not in _FIRST)
    names += sorted(name for name in columns if _is_of_a_loss(name))
    names += [name for name in ("lr",) if name in columns]
    if not names:
        return
    style = {run: style | {"marker": ""} for run, style in styles(table).items()}
    rows = -(-len(names) // 3)
    figure = Figure(figsize=(11, 0.8 + 2.3 * rows), layout="constrained")
    grid = figure.subplots(rows, 3, squeeze=False).ravel()
    for axes, name in zip(grid, names, strict=False):
        for run, logs in table.logs.items():
            seeds = [log[name].dropna() for log in logs.values() if name in log]
            if seeds:
                _lines(axes, pd.concat(seeds, axis=1).sort_index(), style[run])
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.locator_params(axis="x", nbins=5)
        clean(axes, "both")
    for axes in grid[len(names) :]:
        axes.remove()
    handles = [Line2D([], [], **style[run], label=run) for run in table.logs]
    figure.legend(handles=handles, loc="outside upper center", ncols=5, frameon=False, fontsize=9)
    figure.supxlabel("iteration", fontsize=9)
    caption = (
        "What was logged: the weighted losses as they enter the sum, numbers of single losses (lambda is "
        "the strength of FAKD's augmentation), the learning rate. Losses of different methods share no "
        "scale."
    )
    yield Picture("logged", png(figure), caption)


def covariances(logs: Iterable[pd.DataFrame]) -> list[str]:
    """The losses whose covariances some logs follow."""
    return sorted({column.split("/")[0] for log in logs for column in log if "/trace/" in column})


def spread(table: RunTable) -> Iterator[Picture]:
    """A row per run and loss that keeps covariances: their trace and largest eigenvalue, a line per class.

    The classes that end highest have a colour, the others are grey; the dashed line is the median. Mean over
    seeds. No picture where nothing of the kind was logged.
    """
    found = {
        (run, loss): pd.concat(logs.values()).groupby(level=0).mean()
        for run, logs in table.logs.items()
        for loss in covariances(logs.values())
    }
    if not found:
        return
    palette = [color_sequences["petroff10"][i] for i in (0, 1, 2, 4, 9)]
    figure = Figure(figsize=(10, 0.4 + 2.7 * len(found)), layout="constrained")
    grid = figure.subplots(len(found), 2, squeeze=False)
    for ((run, loss), log), axes_row in zip(found.items(), grid, strict=True):
        for axes, (kind, title) in zip(axes_row, _SPREAD.items(), strict=True):
            prefix = f"{loss}/{kind}/"
            values = log[[c for c in log if c.startswith(prefix)]].dropna(how="all")
            values = values.rename(columns=lambda column, prefix=prefix: column.removeprefix(prefix))
            values = values[values > 0]  # a class that was never seen has none
            top = values.iloc[-1].nlargest(_HIGHLIGHTED).index
            axes.plot(values.drop(columns=top), color="0.75", linewidth=0.8)
            axes.plot(values.median(axis=1), color="black", linewidth=1.5, linestyle="--", label="median")
            for name, colour in zip(top, palette, strict=False):
                axes.plot(values[name], color=colour, linewidth=1.6, label=name)
            plain_log(axes, "y", values.stack())
            axes.set_title(f"{run}: {title} ({loss})", fontsize=9)
            axes.tick_params(labelsize=8)
            clean(axes, "both")
            axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.supxlabel("iteration", fontsize=9)
    caption = (
        "How far the features of a class spread: trace and largest eigenvalue of its running covariance, "
        "a line per class, mean over seeds. Coloured: the classes that end highest; dashed: the median."
    )
    yield Picture("covariance", png(figure), caption)


def _is_of_a_loss(name: str) -> bool:
    """Whether a loss logged it: ``<loss>/<name>``, and no number per class."""
    return name.count("/") == 1 and not name.startswith("sem_seg/")


def _lines(axes: Axes, seeds: pd.DataFrame, style: dict[str, Any]) -> None:
    if seeds.shape[1] > 1:
        axes.plot(seeds, color=style["color"], alpha=0.3, linewidth=0.7)
    axes.plot(seeds.mean(axis=1), **style, linewidth=1.6)
