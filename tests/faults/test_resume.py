"""What a run logged, and when, outlives its process."""

import json
import multiprocessing
import os
import signal

import pytest
import torch
from detectron2.engine import HookBase
from integration.conftest import tiny_config

from fakd.checkpoint import Checkpointer
from fakd.engine import run
from fakd.files import read_lines


class DiesAfterCheckpoint(HookBase):
    """The process is killed as soon as the checkpoint of an iteration is there."""

    def after_step(self):
        if self.trainer.iter == 8:
            os.kill(os.getpid(), signal.SIGKILL)


def train_and_die(environment, folder, opts):
    os.environ.update(environment)  # the process that is copied may be older than it
    torch.set_num_threads(1)
    run(tiny_config(folder, *opts), extra_hooks=[DiesAfterCheckpoint()])


def evaluations(folder):
    lines = read_lines(folder / "metrics.json")
    return [(line["iteration"], line["sem_seg/mIoU"]) for line in lines if "sem_seg/mIoU" in line]


def test_a_kill_after_a_checkpoint_loses_no_logged_row(tiny, tmp_path):
    opts = ["TEST.EVAL_PERIOD", 5]
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    # Not a copy of this process: after a backward pass PyTorch refuses another one in a copy.
    child = multiprocessing.get_context("forkserver").Process(
        target=train_and_die, args=(dict(os.environ), killed, opts)
    )
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert [iteration for iteration, _ in evaluations(killed)] == [4]
    tiny(killed, *opts, resume=True)
    tiny(undisturbed, *opts)
    assert evaluations(killed) == evaluations(undisturbed)
    assert [iteration for iteration, _ in evaluations(killed)] == [4, 9, 12]


def test_an_evaluation_after_a_resume_has_its_iteration(tiny, tmp_path):
    tiny(tmp_path)
    (tmp_path / "result.json").unlink()
    before = evaluations(tmp_path)
    tiny(tmp_path, resume=True)
    assert evaluations(tmp_path) == before and [iteration for iteration, _ in before] == [12]
    assert json.loads((tmp_path / "result.json").read_text())["best"]["iteration"] == 12


def test_a_negative_number_of_checkpoints_is_refused_and_zero_keeps_all(tiny, tmp_path):
    with pytest.raises(ValueError, match="CHECKPOINT_KEEP"):
        tiny(tmp_path / "none", "SOLVER.CHECKPOINT_KEEP", -1)
    tiny(tmp_path / "all", "SOLVER.CHECKPOINT_KEEP", 0)
    assert len(list((tmp_path / "all").glob("model_0*.pth"))) == 4
    with pytest.raises(ValueError, match="keep"):
        Checkpointer(None, keep=-1)
