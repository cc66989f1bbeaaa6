"""Factors that grow with the training."""

import math

import pytest

from fakd.schedules import SCHEDULES, ramp


def test_cosine_and_linear_go_from_nothing_over_half_to_all():
    for name in ("cosine", "linear"):
        schedule = ramp(name, 1.5)
        assert schedule(0.0) == pytest.approx(0)
        assert schedule(0.5) == pytest.approx(0.75)
        assert schedule(1.0 - 1e-9) == pytest.approx(1.5)
    assert ramp("cosine", 2.0)(0.25) == pytest.approx(1 - math.cos(math.pi / 4))
    assert ramp("linear", 2.0)(0.25) == pytest.approx(0.5)


def test_constant():
    assert {ramp("constant", 0.7)(t) for t in (0.0, 0.3, 0.99)} == {0.7}


def test_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match=", ".join(SCHEDULES)):
        ramp("step", 1.0)
