"""Metrics of a network on its test sets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tabulate import tabulate


@dataclass(frozen=True, eq=False)
class Metrics:
    """Metrics in percent, by test set.

    Attributes:
        by_set: in the order of DATASETS.TEST, each with mIoU, mAcc, aAcc, and per class IoU-<class> and
            Acc-<class>, nan for a class that does not occur. Empty on ranks other than the first.
    """

    by_set: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @classmethod
    def of_evaluators(cls, test_sets: Sequence[str], results: Mapping[str, Any]) -> Metrics:
        """From what detectron2's evaluation gives; it leaves the name out when there is only one set."""
        if len(test_sets) == 1:
            results = {test_sets[0]: results}
        return cls({name: metrics["sem_seg"] for name, metrics in results.items() if metrics})

    @classmethod
    def of_result(cls, result: Mapping[str, Any]) -> Metrics:
        """From the content of ``result.json``, where a class is a key below "IoU" and "Acc"."""
        return cls({name: _flat(nested) for name, nested in result["metrics_by_dataset"].items()})

    @property
    def first(self) -> Mapping[str, float]:
        """Of the first test set; empty where there is none."""
        return next(iter(self.by_set.values()), {})

    def to_result(self) -> dict[str, Any]:
        """The keys of ``result.json`` that :meth:`of_result` reads."""
        nested = {name: _nested(metrics) for name, metrics in self.by_set.items()}
        return {"metrics": next(iter(nested.values()), {}), "metrics_by_dataset": nested}

    def flat(self) -> dict[str, float]:
        """In one level: the first set's under their names, those of further sets as <set>/<metric>."""
        flat: dict[str, float] = {}
        for i, (name, metrics) in enumerate(self.by_set.items()):
            flat |= {f"{name}/{key}" if i else key: value for key, value in metrics.items()}
        return flat

    def table(self) -> str:
        """IoU and accuracy per class and their means, a table per test set."""
        tables = []
        for name, metrics in self.by_set.items():
            labels = [key.removeprefix("IoU-") for key in metrics if key.startswith("IoU-")]
            rows = [[label, metrics[f"IoU-{label}"], metrics[f"Acc-{label}"]] for label in labels]
            rows.append(["mean", metrics["mIoU"], metrics["mAcc"]])
            tables.append(tabulate(rows, [name, "IoU", "Acc"], "simple", floatfmt=".2f"))
            tables.append(f"aAcc {metrics['aAcc']:.2f}")
        return "\n".join(tables)


def _nested(metrics: Mapping[str, float]) -> dict[str, Any]:
    nested: dict[str, Any] = {"IoU": {}, "Acc": {}}
    for key, value in metrics.items():
        kind, _, label = key.partition("-")
        number = None if math.isnan(value) else value  # JSON has no NaN
        if label:
            nested[kind][label] = number
        else:
            nested[kind] = number
    return nested


def _flat(nested: Mapping[str, Any]) -> dict[str, float]:
    flat: dict[str, float | None] = {}
    for key, value in nested.items():
        flat |= {f"{key}-{c}": v for c, v in value.items()} if isinstance(value, dict) else {key: value}
    return {key: math.nan if value is None else value for key, value in flat.items()}
