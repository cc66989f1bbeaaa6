"""The arithmetic of a comparison over seeds, and how it is said."""

import math
from typing import NamedTuple

import pandas as pd
from scipy.stats import t

MIN_SEEDS = 3  # fewer give no interval worth printing


class Difference(NamedTuple):
    """Difference of two runs, seed by seed.

    Attributes:
        num_seeds: seeds both runs have.
        mean: mean of the differences, in points.
        std: their sample standard deviation; nan with one seed.
        margin: half the width of the 95% interval of the mean (t-distribution); nan below three seeds.
    """

    num_seeds: int
    mean: float
    std: float
    margin: float

    @property
    def is_shown(self) -> bool:
        """Whether the 95% interval leaves zero out."""
        return abs(self.mean) > self.margin  # False for nan


def paired_difference(values: pd.Series, reference: pd.Series) -> Difference | None:
    """``values - reference`` over the seeds (index) both have; None if there is none."""
    differences = (values - reference).dropna()
    count = len(differences)
    if count == 0:
        return None
    std = differences.std()
    margin = math.nan
    if count >= MIN_SEEDS:
        margin = t.ppf(0.975, count - 1) * std / math.sqrt(count)
    return Difference(count, differences.mean(), std, margin)


def seeds_text(count: int) -> str:
    """ "1 seed", "3 seeds"."""
    return "1 seed" if count == 1 else f"{count} seeds"


def signed(value: float) -> str:
    """ "+1.20" or "−0.35", with a true minus sign; never "−0.00"."""
    rounded = round(value, 2) + 0.0
    return f"{rounded:+.2f}".replace("-", "−")


def mean_std(values: pd.Series) -> str:
    """ "43.10 ± 0.42"; without the spread when there is one value, "–" when there is none."""
    values = values.dropna()
    if values.empty:
        return "–"
    return f"{values.mean():.2f}" + (f" ± {values.std():.2f}" if len(values) > 1 else "")


def difference_text(difference: Difference | None) -> str:
    """ "+1.20 ± 0.31 ▲": mean, spread, and a mark when the interval leaves zero out."""
    if difference is None:
        return "–"
    spread = f" ± {difference.std:.2f}" if difference.num_seeds > 1 else ""
    mark = (" ▲" if difference.mean > 0 else " ▼") if difference.is_shown else ""
    return signed(difference.mean) + spread + mark


def interval_text(difference: Difference | None) -> str:
    """ "+0.20 to +2.20": the 95 % interval of the mean; "–" where two seeds are not there to give one."""
    if difference is None or math.isnan(difference.margin):
        return "–"
    return f"{signed(difference.mean - difference.margin)} to {signed(difference.mean + difference.margin)}"
