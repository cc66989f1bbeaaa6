"""The sections of a report, in order: functions from a table of runs to blocks of a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from . import class_plots, headline, log_plots, plots, tables
from .network_views import NetworkViews
from .page import Block, Bullets, LeftOut, Picture, Table, Text
from .statistics import signed
from .table import RunTable

_PAIRS = 15  # of classes whose confusion is shown


@dataclass
class Context:
    """Input of the sections.

    Attributes:
        table: the runs.
        paper: what a paper reports for them.
        num_images: of the first test set that the networks are shown; 0: none.
        trust: see :class:`fakd.report.network_views.NetworkViews`.
        left_out: sentences on what a section could not show; sections add theirs.
    """

    table: RunTable
    paper: tables.PaperValues = field(default_factory=dict)
    num_images: int = 0
    trust: Mapping[str, Any] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @cached_property
    def iou(self) -> pd.DataFrame:
        """See :func:`fakd.report.tables.classes`."""
        return tables.classes(self.table)

    @cached_property
    def confusions(self) -> dict[str, list[np.ndarray]]:
        """By name, for each seed that has it, the (K, K) counts on the first test set."""
        dataset = self.table.datasets[0]
        found = {
            name: [np.array(c) for r in self.table.of(name) if (c := r["confusion"].get(dataset))]
            for name in self.table.names
        }
        return {name: counts for name, counts in found.items() if counts}

    @cached_property
    def views(self) -> NetworkViews:
        """What the networks make of images, computed once."""
        return NetworkViews(self.table, self.num_images, self.left_out, self.trust)


def _summary(context: Context) -> Iterator[Block]:
    table = context.table
    yield Text(headline.lead(table), "lead")
    yield Bullets(headline.sentences(table))
    yield Text(tables.circumstances(table), "note")


def _results(context: Context) -> Iterator[Block]:
    table = context.table
    yield from plots.overview(table)
    for dataset in table.datasets:
        if len(table.datasets) > 1:
            yield Text(f"On `{dataset}`:")
        yield Table(texts := tables.summary(table, dataset, context.paper))
        if "equal time" in texts and tables.may_share_cores(table):
            yield Text(
                "**Equal time is doubtful:** some of these runs trained at the same time on processors of "
                "the same name. If they shared cores, a run's seconds depend on what ran beside it.",
                "warning",
            )
    yield Text(
        f"Percent; mean ± sample standard deviation over seeds. **vs {table.baseline}**: mIoU minus that of "
        f"{table.reference} at the same seed, in points. ▲ better, ▼ worse: the 95% interval of that "
        "difference (t-distribution, from three seeds on) leaves zero out; without a mark, no difference is "
        "shown; p is that of the paired t-test. Bold: the best student of a column, where the interval of "
        "its difference to every other student leaves zero out. **Equal iterations** and **equal time** read "
        "mIoU at the last evaluation within the iterations, and within the seconds of training, that all "
        "students had; they are shown where they say more than mIoU, and no time of students that were "
        "trained side by side on one teacher. **Paper**: what the paper reports.",
        "note",
    )


def _changes(context: Context) -> Iterator[Block]:
    changes = tables.changes(context.table)
    if len(changes):
        yield Table(changes)
        yield Text("A run's weights went through all of its rows, from the first to the last.", "note")


def _examples(context: Context) -> Iterator[Block]:
    if context.num_images:
        yield context.views.panels()


def _per_class(context: Context) -> Iterator[Block]:
    table = context.table
    if context.iou.empty:
        raise LeftOut("no run has results per class.")
    yield class_plots.per_class(table, context.iou)
    yield Table(tables.class_texts(table, _shares(context)))
    yield Text(
        f"IoU in percent on {table.datasets[0]}, mean ± standard deviation over seeds; – where no label has "
        "it. Of a gain, from three seeds on, its 95% interval. A click on a heading sorts.",
        "note",
    )


def _difficulty(context: Context) -> Iterator[Block]:
    table = context.table
    if not _has_gains(context):
        return
    means = class_plots.halves(class_plots.by_difficulty(table, context.iou))
    means["hard − easy"] = means["hard"] - means["easy"]
    caption = (
        f"A bar per class, the one with the lowest IoU of {table.reference} first; the black lines are the "
        "means of the hard and of the easy half."
    )
    yield Picture("difficulty", class_plots.difficulty(table, context.iou), caption)
    yield Table(means.map(signed).reset_index(names="run"))
    yield Text(
        f"Points of IoU. A class that was unlucky in the seeds of {table.reference} lands among the hard "
        "ones and gains by that alone: part of any advantage of the hard half is this return to the mean.",
        "note",
    )


def _long_tail(context: Context) -> Iterator[Block]:
    table, shares = context.table, _shares(context)
    if not _has_gains(context):
        return
    if shares is None:
        raise LeftOut("no run has a confusion.json, which counts the pixels of each class.")
    correlations = class_plots.rank_correlations(table, context.iou, shares)
    caption = "A dot per class: what a method gains over how much of the test set the class covers."
    yield Picture("long_tail", class_plots.long_tail(table, context.iou, shares), caption)
    told = ", ".join(f"{name} {signed(value)}" for name, value in correlations.items())
    yield Text(
        f"Spearman's rank correlation of gain and share: {told}. Below zero the rare classes gain more.",
        "note",
    )


def _confusions(context: Context) -> Iterator[Block]:
    table = context.table
    without = [row["source"] for n in table.names for row in table.of(n) if not row["confusion"]]
    rates = {
        name: np.mean([class_plots.confusion_rates(c) for c in counts], axis=0)
        for name, counts in context.confusions.items()
    }
    if not _has_gains(context):
        return
    if table.baseline not in rates or not set(rates) & set(table.methods):
        raise LeftOut("that takes a confusion.json of the baseline and of a method.")
    if without:
        context.left_out.append(f"No confusion.json in {', '.join(without)}: trained by an older version.")
    changed = class_plots.changed_confusions(rates, table, list(context.iou.index), _PAIRS)
    if changed.empty:
        return
    caption = (
        f"How much of a label is taken for another class, minus that of {table.reference}, in points of the "
        f"label's pixels; the {len(changed)} pairs that changed most, mean over seeds."
    )
    yield Picture("confusions", class_plots.confusions(table, changed), caption)
    methods = [name for name in table.methods if name in changed]
    texts = {table.baseline: changed[table.baseline].map("{:.1f} %".format)}
    yield Table(changed.assign(**texts, **{name: changed[name].map(signed) for name in methods}))


def _training(context: Context) -> Iterator[Block]:
    table = context.table
    yield from plots.curves(table)
    yield from log_plots.logged(table)
    if not table.logs:
        context.left_out.append("Losses in “While training”, because no run's metrics.json is at hand.")


def _covariance(context: Context) -> Iterator[Block]:
    table = context.table
    if not any(_augments(table, name) for name in table.names):
        return
    pictures = list(log_plots.spread(table))
    if not pictures:
        raise LeftOut("no metrics.json with covariances is at hand.")
    yield from pictures


def _activations(context: Context) -> Iterator[Block]:
    if context.num_images:
        yield context.views.activations()


def _cost(context: Context) -> Iterator[Block]:
    yield Table(tables.cost(context.table))
    sizes = dict.fromkeys(tables.size_text(size) for size in context.table.runs["flops_size"])
    yield Text(
        f"GFLOPs count a multiply-add once, for one image of {' or '.join(sizes)} (height x width); they and "
        "the parameters are those of the network in use, without the auxiliary head. s/iteration is the "
        "median training step, wall-clock one run with its evaluations; both depend on what else the machine "
        "was doing. Peak memory is the most that was allocated on the GPU at any time of the training, or on "
        "a CPU, the most that the process held, libraries and data workers' shared pages included.",
        "note",
    )


def _pairs(context: Context) -> Iterator[Block]:
    if len(context.table.methods) > 1:
        yield Table(tables.pairs(context.table))
        yield Text("mIoU of the first minus that of the second at the same seed; ▲ and ▼ as above.", "note")


def _protocol(context: Context) -> Iterator[Block]:
    """A column that says the same in every row is told once."""
    protocol = tables.protocol(context.table)
    same = [c for c in protocol if c not in ("run", "seed") and protocol[c].nunique() == 1]
    if len(protocol) > 1 and same:
        yield Text("The same in every run: " + "; ".join(f"{c} {protocol[c].iloc[0]}" for c in same) + ".")
        protocol = protocol.drop(columns=same)
    yield Table(protocol)


def _has_gains(context: Context) -> bool:
    return bool(context.table.methods) and context.table.baseline in context.iou


def _augments(table: RunTable, name: str) -> bool:
    configs = (row["config"] for row in table.of(name))
    return any(loss.startswith("FAKD") for c in configs if c for loss in c["KD"]["LOSSES"])


def _shares(context: Context) -> pd.Series | None:
    """By class, in percent of all labelled pixels."""
    for counts in context.confusions.values():
        return pd.Series(100 * counts[0].sum(axis=1) / counts[0].sum(), context.iou.index)
    return None


# By heading, in the order of a page.
SECTIONS: dict[str, Callable[[Context], Iterable[Block]]] = {
    "Summary": _summary,
    "Results": _results,
    "Over the values of a key": lambda context: plots.by_value(context.table),
    "mIoU over time": lambda context: plots.over_time(context.table),
    "Values that changed on the way": _changes,
    "Examples": _examples,
    "Per class": _per_class,
    "Hard and easy classes": _difficulty,
    "Frequent and rare classes": _long_tail,
    "Confusions that changed most": _confusions,
    "While training": _training,
    "Covariance of the features": _covariance,
    "Activation, with and without covariance": _activations,
    "What it costs": _cost,
    "Method against method": _pairs,
    "Every run": lambda context: [Table(tables.every_run(context.table))],
    "Protocol of every run": _protocol,
}
