"""A trial that goes on from another one's checkpoint, without Ray."""

import pytest
import torch
from integration.conftest import assert_same_weights, weights

from fakd.engine import run
from fakd.sweep.plan import make_plan
from fakd.sweep.population import go_on, schedule_of, snapshot
from fakd.sweep.spec import parse_spec
from fakd.sweep.worker import run_trials

from .conftest import content

WEIGHT, RATE = "KD.CWD.WEIGHT", "SOLVER.BASE_LR"


class Interrupted(Exception):
    pass


def until(iteration):
    """What a sweep does to a trial that has to wait: nothing comes after this report."""

    def report(metrics):
        if metrics["iteration"] == iteration:
            raise Interrupted

    return report


@pytest.fixture
def plan(tmp_path):
    keys = {WEIGHT: [0.5, 50.0], RATE: [0.01, 0.02]}
    found = make_plan(parse_spec(content(methods=["cwd"], keys=keys, scheduler="pbt")), tmp_path / "out")
    run_trials(found.teachers, tmp_path / "out")
    return found


def test_what_goes_on_from_another_trial_is_that_trial_with_other_values(tmp_path, plan):
    out = tmp_path / "out"
    (population,) = plan.populations
    donor, pupil, *_ = population
    for trial in (donor, pupil):
        with pytest.raises(Interrupted):
            run_trials([trial], out, until(2))
    kept = tmp_path / "kept"
    kept.mkdir()
    snapshot(donor, kept)
    new = {WEIGHT: 5.0, RATE: 0.05}
    moved = go_on(pupil, new, kept)
    assert go_on(pupil, {}, None).config() == moved.config()  # as after a kill
    assert run_trials([moved], out) == "finished"
    assert [(s["iteration"], s["run"], s["values"]) for s in schedule_of(moved)] == [
        (0, donor.run, donor.values),
        (2, moved.run, new),
    ]
    # By hand: the donor's own folder, resumed with the pupil's values and rates.
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


def test_a_trial_goes_on_from_its_own_snapshot_as_it_was(tmp_path, plan):
    (trial, *_), kept = plan.populations[0], tmp_path / "kept"
    with pytest.raises(Interrupted):
        run_trials([trial], tmp_path / "out", until(2))
    kept.mkdir()
    snapshot(trial, kept)
    assert go_on(trial, {WEIGHT: 7.0, RATE: 1.0}, kept) == trial
