"""Paired comparisons over seeds, and their texts."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd
from scipy.stats import t

MIN_SEEDS = 3  # fewer give no meaningful interval


class Difference(NamedTuple):
    """Difference of two runs, seed by seed.

    Attributes:
        num_seeds: seeds both runs have.
        mean: mean of the differences, in points.
        std: their sample standard deviation; nan with one seed.
        margin: half the width of the 95% interval of the mean (t-distribution); nan below three seeds.
        p: two-sided p of the paired t-test; nan with one seed.
    """

    num_seeds: int
    mean: float
    std: float
    margin: float
    p: float

    @property
    def is_shown(self) -> bool:
        """Whether the 95% interval leaves zero out."""
        return abs(self.mean) > self.margin  # False for nan


def paired_difference(values: pd.Series, reference: pd.Series) -> Difference | None:
    """``values - reference`` over the seeds (index) both have; None if there is none."""
    differences = (values - reference).dropna()
    count, mean, std = len(differences), differences.mean(), differences.std()
    if count == 0:
        return None
    if std == 0:  # where the statistic of the test is not defined
        return Difference(count, mean, std, 0.0 if count >= MIN_SEEDS else math.nan, float(mean == 0))
    margin = t.ppf(0.975, count - 1) * std / math.sqrt(count) if count >= MIN_SEEDS else math.nan
    return Difference(count, mean, std, margin, 2 * t.sf(abs(mean) / differences.sem(), count - 1))


def winner(values: Mapping[str, pd.Series]) -> str:
    """The run whose mean is the highest, beyond seed variance: shown against every other one; "" if none is.

    Args:
        values: by run, indexed by seed.
    """
    means = {name: column.mean() for name, column in values.items() if len(column)}
    if len(means) < 2:
        return ""
    best = max(means, key=lambda name: means[name])
    differences = [paired_difference(values[best], values[name]) for name in means if name != best]
    return best if all(d is not None and d.is_shown for d in differences) else ""


def seeds_text(count: int) -> str:
    """ "1 seed", "3 seeds"."""
    return "1 seed" if count == 1 else f"{count} seeds"


def signed(value: float) -> str:
    """ "+1.20" or "−0.35", with a true minus sign; never "−0.00"."""
    rounded = round(value, 2) + 0.0
    return f"{rounded:+.2f}".replace("-", "−")


def number(value: float, digits: int = 2) -> str:
    """ "43.10"; "–" where there is none."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def mean_std(values: pd.Series) -> str:
    """ "43.10 ± 0.42"; without the spread when there is one value, "–" when there is none."""
    values = values.dropna()
    return number(values.mean()) + _spread(values.std(), len(values))


def difference_text(difference: Difference | None) -> str:
    """ "+1.20 ± 0.31 ▲": mean, spread, and a mark when the interval leaves zero out."""
    if difference is None:
        return "–"
    return signed(difference.mean) + _spread(difference.std, difference.num_seeds) + _mark(difference)


def difference_with_interval(difference: Difference) -> str:
    """ "+1.20 (+0.20 to +2.20) ▲"; without the interval below three seeds."""
    interval = "" if math.isnan(difference.margin) else f" ({interval_text(difference)})"
    return signed(difference.mean) + interval + _mark(difference)


def interval_text(difference: Difference | None) -> str:
    """ "+0.20 to +2.20": the 95 % interval of the mean; "–" where two seeds are not there to give one."""
    if difference is None or math.isnan(difference.margin):
        return "–"
    return f"{signed(difference.mean - difference.margin)} to {signed(difference.mean + difference.margin)}"


def _spread(std: float, count: int) -> str:
    return f" ± {std:.2f}" if count > 1 else ""


def _mark(difference: Difference) -> str:
    return (" ▲" if difference.mean > 0 else " ▼") if difference.is_shown else ""
