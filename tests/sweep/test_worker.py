"""Troubles of a trial that need no Ray."""

import functools
import json
import resource
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
import torch.multiprocessing as mp
from detectron2.data import DatasetCatalog
from ranks import copied_processes

from fakd.sweep import worker
from fakd.sweep.events import events_file, last
from fakd.sweep.plan import make_plan
from fakd.sweep.spec import parse_spec
from fakd.sweep.worker import run_trials

from .conftest import content, trouble


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


def test_trials_train_on_several_devices_one_after_another(tmp_path, monkeypatch):
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
    # Again, as the next trial of a sweep in this process: its ranks meet anew, and find it finished.
    begin = functools.partial(torch.distributed.init_process_group, timeout=timedelta(minutes=1))
    monkeypatch.setattr(torch.distributed, "init_process_group", begin)
    with copied_processes():
        assert run_trials([trial], tmp_path, gpus=2) == "finished"


class OneRunsOut:
    """A trial whose second rank has no memory left, while the first waits for it."""

    given = False

    def config(self):
        if torch.distributed.is_initialized():
            if torch.distributed.get_rank() == 1:
                raise torch.OutOfMemoryError("there is no more memory")
            torch.distributed.barrier()
        return SimpleNamespace(MODEL=SimpleNamespace(DEVICE="cpu"))


def test_the_error_of_another_device_than_the_first_ends_the_trial():
    with copied_processes(), pytest.raises(torch.OutOfMemoryError, match="there is no more memory"):
        worker._run_on_several(2, OneRunsOut(), None)


def test_an_error_before_the_devices_meet_is_the_one_told(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise RuntimeError("no way to meet")

    monkeypatch.setattr(torch.distributed, "init_process_group", refuse)
    with copied_processes(), pytest.raises(RuntimeError, match="no way to meet"):
        run_trials([trial_of(tmp_path, resources={"gpus": 2})], tmp_path, gpus=2)


def test_what_may_pass_is_raised_for_a_pack_as_for_a_run_alone(tmp_path):
    methods = [
        trouble(tmp_path, "Waits", marker=str(tmp_path)),  # which is there: for nothing
        trouble(tmp_path, "Stumbles", marker=str(tmp_path / "marker")),
    ]
    plan = make_plan(parse_spec(content(methods=methods, pack=2)), tmp_path / "out")
    run_trials(plan.teachers, tmp_path / "out")
    with pytest.raises(OSError, match="Input/output error"):
        run_trials(plan.trials, tmp_path / "out")
    assert [trial.finished for trial in plan.trials] == [True, False]
    written = (plan.trials[0].folder / "result.json").stat().st_mtime_ns
    assert run_trials(plan.trials, tmp_path / "out") == "finished"
    assert (plan.trials[0].folder / "result.json").stat().st_mtime_ns == written
    assert all(last(events_file(tmp_path / "out", trial.folder), "result") for trial in plan.trials)
