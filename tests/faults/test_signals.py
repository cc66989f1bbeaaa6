"""A signal means stop, wherever it arrives, and nothing is lost."""

import contextlib
import multiprocessing
import os
import signal
import socket
import time
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase, default_argument_parser
from integration.conftest import assert_same_weights, tiny_config, weights
from integration.test_resume import wait_for
from torch.utils.data import DataLoader

from fakd.checkpoint import Checkpointer
from fakd.data.loader import leave_signals
from fakd.engine import SharedTeacherRun, run_side_by_side, teacher_check
from fakd.evaluation import SegEvaluator


@pytest.fixture
def undisturbed(tiny, tmp_path):
    """The folder of a run that nothing stops, and what it reached."""
    return tmp_path / "undisturbed", tiny(tmp_path / "undisturbed")


def signals_in(patch, holder, name, when=lambda *args: True):
    """Ctrl-C, once, in the middle of a method."""
    method, sent = getattr(holder, name), []

    def interrupted(*args, **options):
        if not sent and when(*args):
            sent.append(signal.raise_signal(signal.SIGINT))
        return method(*args, **options)

    patch.setattr(holder, name, interrupted)


@pytest.mark.parametrize("where", ["last checkpoint", "last evaluation", "best model"])
def test_a_signal_at_the_end_stops_the_run_which_resumes_alike(
    tiny, tmp_path, undisturbed, monkeypatch, where
):
    folder = tmp_path / "stopped"
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        if where == "last checkpoint":
            signals_in(patch, Checkpointer, "save_model", lambda self, name, **_: name == "model_final")
        elif where == "last evaluation":
            signals_in(patch, SegEvaluator, "process")
        else:
            signals_in(patch, torch, "save", lambda state, file: "model_best" in file.name)
        tiny(folder)
    assert stop.value.code == 130
    assert not (folder / "result.json").exists()
    assert tiny(folder, resume=True) == pytest.approx(undisturbed[1], nan_ok=True)
    for name in ("model_final.pth", "model_best.pth"):
        assert_same_weights(weights(folder / name), weights(undisturbed[0] / name))


def test_a_signal_during_set_up_stops_the_run(tiny, teacher, tmp_path, monkeypatch):
    signals_in(monkeypatch, teacher_check, "inference_on_dataset")
    with pytest.raises(SystemExit) as stop:
        tiny(tmp_path, *teacher, recipe="cwd")
    assert stop.value.code == 130 and not list(tmp_path.glob("*.pth"))


class Interrupts(HookBase):
    def after_step(self):
        if self.trainer.iter == 4:
            signal.raise_signal(signal.SIGTERM)


def test_all_students_of_a_teacher_are_saved_after_the_same_step(teacher, tmp_path):
    configs = [tiny_config(tmp_path / method, *teacher, recipe=method) for method in ("cwd", "pd")]
    with pytest.raises(SystemExit) as stop:
        run_side_by_side([SharedTeacherRun(cfg, extra_hooks=[Interrupts()]) for cfg in configs])
    assert stop.value.code == 143
    assert all(Path(cfg.OUTPUT_DIR, "model_0000004.pth").exists() for cfg in configs)


@pytest.fixture
def taken_port():
    """The port at which detectron2's tools would meet is another program's."""
    port = int(default_argument_parser().get_default("dist_url").rpartition(":")[2])
    with socket.socket() as other:
        with contextlib.suppress(OSError):  # somebody has it already
            other.bind(("127.0.0.1", port))
            other.listen()
        yield


@pytest.mark.usefixtures("taken_port")
@pytest.mark.parametrize("processes", [1, 2])
def test_a_signal_to_the_whole_process_group_saves_and_ends(train_net, tmp_path, processes):
    opts = ["SOLVER.MAX_ITER", "100000", "SOLVER.CHECKPOINT_PERIOD", "5", "DATALOADER.NUM_WORKERS", "2"]
    process = train_net(tmp_path, "--num-gpus", str(processes), *opts, own_group=True)
    try:
        wait_for(tmp_path / "model_0000004.pth", process)
        os.killpg(process.pid, signal.SIGTERM)
        output = process.communicate(timeout=60)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 143, output
    assert "Stopped by SIGTERM after" in output and "Traceback" not in output


def load_forever(pids):
    loader = DataLoader(range(10**9), num_workers=1, worker_init_fn=leave_signals)
    for _ in loader:
        pids.put([child.pid for child in multiprocessing.active_children()])
        time.sleep(0.1)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")
def test_data_workers_outlive_signals_and_not_their_parent():
    context = multiprocessing.get_context("fork")
    pids = context.Queue()
    parent = context.Process(target=load_forever, args=[pids])
    parent.start()
    (worker,) = pids.get(timeout=60)
    os.kill(worker, signal.SIGTERM)
    os.kill(worker, signal.SIGINT)
    time.sleep(0.3)
    assert is_alive(worker)
    parent.kill()
    parent.join()
    end = time.monotonic() + 30
    while is_alive(worker):
        assert time.monotonic() < end
        time.sleep(0.1)
