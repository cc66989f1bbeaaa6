"""Statistics over seeds against numbers worked out by hand."""

import math

import pandas as pd
import pytest

from fakd.report.statistics import (
    difference_text,
    interval_text,
    mean_std,
    paired_difference,
    signed,
)


def series(*values, seeds=None):
    return pd.Series(values, index=seeds or range(len(values)), dtype=float)


def test_difference_is_paired_over_common_seeds():
    # seeds 1, 2, 3 are shared: differences 1, 2, 3
    difference = paired_difference(
        series(41, 52, 63, seeds=[1, 2, 3]), series(30, 40, 50, 60, seeds=[0, 1, 2, 3])
    )
    assert difference.num_seeds == 3
    assert difference.mean == pytest.approx(2) and difference.std == pytest.approx(1)
    quantile = 4.303  # of Student's t with 2 degrees of freedom
    assert difference.margin == pytest.approx(quantile / math.sqrt(3), rel=1e-3)
    assert not difference.is_shown
    assert interval_text(difference) == "−0.48 to +4.48"


def test_pairing_sees_what_spread_over_seeds_hides():
    student = series(30, 40, 50, 60)
    difference = paired_difference(student + series(1.0, 1.1, 0.9, 1.0), student)
    assert difference.is_shown and difference_text(difference) == "+1.00 ± 0.08 ▲"
    worse = paired_difference(student, student + series(1.0, 1.1, 0.9, 1.0))
    assert worse.is_shown and difference_text(worse) == "−1.00 ± 0.08 ▼"


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_seeds_show_nothing(count):
    difference = paired_difference(series(*[50.0] * count), series(*[40.0] * count))
    assert difference.num_seeds == count and not difference.is_shown
    assert interval_text(difference) == "–"


def test_no_common_seed():
    assert paired_difference(series(1, seeds=[0]), series(1, seeds=[1])) is None
    assert difference_text(None) == interval_text(None) == "–"


def test_many_seeds_have_a_narrower_interval():
    values = series(*[float(i % 2) for i in range(40)])
    difference = paired_difference(values, values * 0)
    assert difference.margin == pytest.approx(2.023 * values.std() / math.sqrt(40), rel=1e-3)


def test_texts():
    assert mean_std(series(1, 2, 3)) == "2.00 ± 1.00"
    assert mean_std(series(1.234)) == "1.23"
    assert mean_std(series()) == mean_std(series(math.nan)) == "–"
    assert [signed(v) for v in (1.005e1, -0.3, -0.001)] == ["+10.05", "−0.30", "+0.00"]
