"""Troubles of a trial that need no Ray."""

import json
import resource

import torch.multiprocessing as mp
from detectron2.data import DatasetCatalog
from ranks import copied_processes

from fakd.sweep.events import events_file, last
from fakd.sweep.plan import make_plan
from fakd.sweep.spec import parse_spec
from fakd.sweep.worker import run_trials

from .conftest import content


def trial_of(folder, **changes):
    return make_plan(parse_spec(content(methods=["student"], **changes)), folder).trials[0]


def run_without_room(rank, folder):
    """No file may grow beyond 100 kB: a checkpoint cannot be written, an event can."""
    trial = trial_of(folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    (folder / "ended").write_text(run_trials([trial], folder))


def test_a_full_disk_fails_the_trial_with_the_reason(tmp_path):
    """In a process of its own, because the files that pytest writes may be larger."""
    trial = trial_of(tmp_path)
    with copied_processes():
        mp.start_processes(run_without_room, (tmp_path,))
    assert (tmp_path / "ended").read_text() == "failed"
    told = last(events_file(tmp_path, trial.folder), "failed")["error"]
    assert "cannot write" in told and "model_0000000.pth" in told
    assert not list(trial.folder.glob("*.pth*"))


def test_a_trial_trains_on_several_devices(tmp_path):
    """On the CPU, where gloo takes NCCL's place."""
    trial = trial_of(tmp_path, resources={"gpus": 2})
    for name in (*trial.config().DATASETS.TRAIN, *trial.config().DATASETS.TEST):
        DatasetCatalog.get(name)  # draws the scenes, which two ranks at once cannot
    seen = []
    with copied_processes():
        assert run_trials([trial], tmp_path, seen.append, gpus=2) == "finished"
    assert [metrics["iteration"] for metrics in seen] == [2]
    assert json.loads((trial.folder / "result.json").read_text())["iterations"] == 4
    assert (trial.folder / "log.txt.rank1").exists()
