"""A budget of seconds, counted by a clock that the test turns: one second a step."""

import pytest
from detectron2.engine import HookBase

from fakd.engine import Trainer

from .conftest import assert_same_weights, weights

SECONDS = 8


class Tick(HookBase):
    """Turns the clock, and notes learning rate and share of the budget of every step; can break down."""

    def __init__(self, patch, breaks_at=None):
        self._now, self._breaks_at, self.seen = 100.0, breaks_at, {}
        patch.setattr("fakd.engine.hooks.perf_counter", lambda: self._now)

    def before_step(self):
        step = self.trainer.iter
        if step == self._breaks_at:
            raise RuntimeError("the power is gone")
        self.seen[step] = (self.trainer.optimizer.param_groups[0]["lr"], self.trainer.budget.spent)
        self._now += 1.0


def test_schedules_follow_the_seconds_as_they_do_iterations_also_over_a_resume(
    tmp_path, tiny, teacher, monkeypatch
):
    options = [*teacher, "SOLVER.CHECKPOINT_PERIOD", 2]
    counted = Tick(monkeypatch)
    tiny(tmp_path / "a", *options, "SOLVER.MAX_ITER", SECONDS, recipe="fakd", extra_hooks=[counted])
    assert [share for _, share in counted.seen.values()] == [i / SECONDS for i in range(SECONDS)]
    rates = [rate for rate, _ in counted.seen.values()]
    assert rates == sorted(rates, reverse=True) and rates[-1] < 0.2 * rates[0]

    options += ["SOLVER.MAX_ITER", 1000]
    timed = Tick(monkeypatch, breaks_at=5)
    with pytest.raises(RuntimeError, match="power"):
        tiny(tmp_path / "b", *options, recipe="fakd", extra_hooks=[timed], max_seconds=SECONDS)
    again = Tick(monkeypatch)
    tiny(tmp_path / "b", *options, recipe="fakd", extra_hooks=[again], max_seconds=SECONDS, resume=True)
    assert min(again.seen) == 4 and timed.seen | again.seen == counted.seen
    assert_same_weights(weights(tmp_path / "a/model_final.pth"), weights(tmp_path / "b/model_final.pth"))


def test_iterations_count_where_they_are_sooner_over(tmp_path, tiny, monkeypatch):
    tick = Tick(monkeypatch)
    tiny(tmp_path, "SOLVER.MAX_ITER", 4, extra_hooks=[tick], max_seconds=1000)
    assert [share for _, share in tick.seen.values()] == [0, 0.25, 0.5, 0.75]


def test_a_run_that_ended_in_its_last_evaluation_is_evaluated_alone(tmp_path, tiny, monkeypatch):
    tick = Tick(monkeypatch)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power"):
        patch.setattr(Trainer, "test", fails)
        tiny(tmp_path, "SOLVER.MAX_ITER", 100, extra_hooks=[tick], max_seconds=4)
    before = weights(tmp_path / "model_final.pth")
    again = Tick(monkeypatch)
    tiny(tmp_path, "SOLVER.MAX_ITER", 100, extra_hooks=[again], max_seconds=4, resume=True)
    assert len(tick.seen) == 4 and not again.seen
    assert_same_weights(weights(tmp_path / "model_final.pth"), before)


def fails(*given):
    raise RuntimeError("the power is gone")
