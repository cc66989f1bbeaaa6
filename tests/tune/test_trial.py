"""Troubles of a trial that need no Ray."""

import json
import resource

import pytest
from detectron2.data import DatasetCatalog

from fakd.tune.lines import last, lines_file
from fakd.tune.plan import make_plan
from fakd.tune.spec import parse_spec
from fakd.tune.trial import run_trials

from .conftest import content


@pytest.fixture
def no_room():
    """No file may grow beyond 100 kB: a checkpoint cannot be written, a line can."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def trial_of(folder, **changes):
    return make_plan(parse_spec(content(methods=["student"], **changes)), folder).trials[0]


def test_a_full_disk_fails_the_trial_with_the_reason(tmp_path, no_room):
    trial = trial_of(tmp_path)
    assert run_trials([trial], tmp_path) == "failed"
    told = last(lines_file(tmp_path, trial.folder), "failed")["error"]
    assert "cannot write" in told and "model_0000000.pth" in told
    assert not list(trial.folder.glob("*.pth*"))


def test_a_trial_trains_on_several_devices(tmp_path):
    """On the CPU, where gloo takes NCCL's place."""
    trial = trial_of(tmp_path, resources={"gpus": 2})
    for name in (*trial.config().DATASETS.TRAIN, *trial.config().DATASETS.TEST):
        DatasetCatalog.get(name)  # draws the scenes, which two ranks at once cannot
    seen = []
    assert run_trials([trial], tmp_path, seen.append, gpus=2) == "finished"
    assert [metrics["iteration"] for metrics in seen] == [2]
    assert json.loads((trial.folder / "result.json").read_text())["iterations"] == 4
    assert (trial.folder / "log.txt.rank1").exists()
