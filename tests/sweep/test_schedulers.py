"""Schedulers that stop trials, on the reports that real runs make; and a population under Ray."""

import json

import pytest

pytest.importorskip("ray", reason="sweeps need ray: pip install 'ray[tune]'")

from ray.tune.schedulers import TrialScheduler

from fakd.sweep.plan import make_plan
from fakd.sweep.ray_cluster import Options
from fakd.sweep.ray_tune import build_scheduler, run_sweep
from fakd.sweep.spec import parse_spec
from fakd.sweep.worker import run_trials

from .conftest import content

RATE = "SOLVER.BASE_LR"
# In two steps all networks unlearn what luck gave them; those that hardly move keep it.
RATES = [1e-6, 1e-7, 1e-8, 0.02]


class Handle:
    """What a scheduler wants to know of one of Ray's trials."""

    ERROR = "ERROR"

    def __init__(self, name, status="RUNNING"):
        self.trial_id, self.status = name, status


class Stopped(Exception):
    pass


@pytest.mark.parametrize("name", ["asha", "median"])
def test_what_falls_behind_is_stopped_and_nothing_else(tmp_path, name):
    given = content(methods=["student"], keys={RATE: RATES}, scheduler=name)
    scheduler = build_scheduler(name)
    scheduler.set_search_properties("mIoU", "max")
    stopped, reached = [], {}
    for trial in make_plan(parse_spec(given), tmp_path).trials:
        handle = Handle(trial.run)
        scheduler.on_trial_add(None, handle)

        def report(metrics, handle=handle):
            reached[handle] = metrics
            if scheduler.on_trial_result(None, handle, metrics) == TrialScheduler.STOP:
                raise Stopped

        try:
            run_trials([trial], tmp_path, report)
        except Stopped:
            stopped.append(trial.values[RATE])
        scheduler.on_trial_complete(None, handle, reached[handle])
    assert stopped == [0.02]


@pytest.mark.slow  # a minute; test_local.py has populations without Ray
def test_the_last_of_a_population_goes_on_from_the_first(tmp_path):
    given = content(methods=["student"], keys={RATE: [1e-6, 0.02]}, scheduler="pbt")
    assert run_sweep(parse_spec(given), Options(tmp_path, cpus=2)) == 0
    first, last = (tmp_path / "runs" / f"student-member{i}" / "seed0" for i in (0, 1))
    (before, after) = json.loads((last / "schedule.json").read_text())
    assert before == {"iteration": 0, "run": "student-member0", "values": {RATE: 1e-6}}
    assert after["iteration"] == 2 and after["run"] == "student-member1"
    assert not (first / "schedule.json").exists()
    results = [json.loads((folder / "result.json").read_text())["metrics"] for folder in (first, last)]
    assert (results[0] == results[1]) == (after["values"] == before["values"])
