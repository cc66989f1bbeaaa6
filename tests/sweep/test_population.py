"""A trial that goes on from another one's checkpoint, without Ray."""

import pytest
import torch
from integration.conftest import assert_same_weights, weights

from fakd.engine import run
from fakd.sweep.plan import make_plan
from fakd.sweep.population import as_scheduled, continue_from, exploit, schedule_of
from fakd.sweep.spec import parse_spec
from fakd.sweep.worker import run_trials

from .conftest import content

WEIGHT, RATE = "KD.CWD.WEIGHT", "SOLVER.BASE_LR"


@pytest.fixture
def plan(tmp_path):
    keys = {WEIGHT: [0.5, 50.0], RATE: [0.01, 0.02]}
    found = make_plan(parse_spec(content(methods=["cwd"], keys=keys, scheduler="pbt")), tmp_path / "out")
    run_trials(found.teachers, tmp_path / "out")
    return found


def pause(trial, out):
    assert run_trials([trial], out, until=2) == "paused"


def test_what_continues_from_another_trial_is_that_trial_with_other_values(tmp_path, plan):
    out = tmp_path / "out"
    (population,) = plan.populations
    donor, student, *_ = population
    for trial in (donor, student):
        pause(trial, out)
    new = {WEIGHT: 5.0, RATE: 0.05}
    continue_from(donor, student.with_values(new))
    moved = as_scheduled(student)  # as after a kill
    assert moved.config() == student.with_values(new).config()
    assert run_trials([moved], out) == "finished"
    assert [(s["iteration"], s["run"], s["values"]) for s in schedule_of(moved)] == [
        (0, donor.run, donor.values),
        (2, moved.run, new),
    ]
    # By hand: the donor's own folder, resumed with the student's values and rates.
    state = torch.load(donor.folder / "model_0000001.pth")
    for group in state["trainer"]["_trainer"]["optimizer"]["param_groups"]:
        group["lr"] *= 5
        group["initial_lr"] *= 5
    state["trainer"]["hooks"]["LRScheduler"]["base_lrs"] = [0.05]
    torch.save(state, donor.folder / "model_0000001.pth")
    by_hand = donor.with_values(new).config()
    (donor.folder / "config.yaml").write_text(by_hand.dump())
    run(by_hand, resume=True, quiet=True)
    assert_same_weights(weights(donor.folder / "model_final.pth"), weights(moved.folder / "model_final.pth"))


def test_only_the_last_continues_from_the_first_and_the_same_once_more(tmp_path, plan):
    (members,) = plan.populations
    for trial in members:
        pause(trial, tmp_path / "out")
    scores = {trial: -i for i, trial in enumerate(members)}
    axes = {WEIGHT: [0.5, 50.0], RATE: {"loguniform": [0.001, 0.02]}}
    exploit(members, scores, axes)
    first, *between, last = members
    assert [as_scheduled(trial) for trial in (first, *between)] == [first, *between]
    before, after = schedule_of(last)
    assert before["run"] == first.run and after["run"] == last.run and after["iteration"] == 2
    assert after["values"][WEIGHT] in (0.5, 50.0) and 0.001 <= after["values"][RATE] <= 0.02
    exploit([as_scheduled(trial) for trial in members], scores, axes)  # as after a kill just now
    assert schedule_of(last) == [before, after]
