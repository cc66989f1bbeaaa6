"""A run that is stopped, in whatever way, and resumed ends as if it never had been."""

import json
import random
import re
import signal
import time

import pytest
import torch

from fakd.engine import run

from .conftest import assert_same_weights, tiny_config, weights

LONG = ["SOLVER.MAX_ITER", "40", "SOLVER.CHECKPOINT_PERIOD", "5", "TEST.EVAL_PERIOD", "16"]


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, (
            f"the run ended before {path.name} was there:\n{process.communicate()[0]}"
        )
        time.sleep(0.005)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of a long run of the student."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run(tiny_config(folder, *LONG, recipe="student"))
    return folder


def state(folder, iteration):
    return torch.load(folder / f"model_{iteration:07d}.pth")


@pytest.mark.parametrize("recipe", ["student", "fakd"])
def test_killed_and_resumed_equals_undisturbed_to_the_bit(tiny, train_net, teacher, tmp_path, recipe):
    opts = [*LONG, *(teacher if recipe != "student" else [])]
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    process = train_net(killed, "--recipe", recipe, *opts)
    wait_for(killed / "model_0000009.pth", process)
    time.sleep(random.uniform(0, 0.3))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "result.json").exists()

    resumed_metrics = tiny(killed, *opts, recipe=recipe, resume=True)
    metrics = tiny(undisturbed, *opts, recipe=recipe)
    for name in ("model_final.pth", "model_best.pth"):
        assert_same_weights(weights(killed / name), weights(undisturbed / name))
    assert resumed_metrics == pytest.approx(metrics, nan_ok=True)
    a, b = state(killed, 39), state(undisturbed, 39)
    assert_same_weights(a.get("distillation", {}), b.get("distillation", {}))
    momenta = [s["trainer"]["_trainer"]["optimizer"]["state"] for s in (a, b)]
    assert all(
        torch.equal(momenta[0][i]["momentum_buffer"], momenta[1][i]["momentum_buffer"]) for i in momenta[0]
    )
    assert logged(killed) == logged(undisturbed)


def logged(folder):
    """The logged losses and rates by iteration; each iteration appears once."""
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    rates = [(line["iteration"], line["lr"]) for line in lines if "lr" in line]
    assert len({i for i, _ in rates}) == len(rates)
    return rates


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_finishes_the_step_saves_and_exits_with_its_code(
    tiny, train_net, tmp_path, undisturbed, number, code
):
    run = tmp_path / "run"
    opts = [*LONG[:2], "SOLVER.CHECKPOINT_PERIOD", "7"]
    process = train_net(run, *opts)
    wait_for(run / "model_0000006.pth", process)
    process.send_signal(number)
    output = process.communicate()[0]
    assert process.returncode == code, output
    assert "--resume" in output and "Traceback" not in output
    newest = sorted(run.glob("model_0*.pth"))[-1]
    assert torch.load(newest)["iteration"] == int(newest.stem[-7:])
    # Nothing after the last saved iteration was done and lost: the message names the very next one.
    assert f"after {int(newest.stem[-7:]) + 1} of 40 iterations" in output
    tiny(run, *opts, resume=True)
    assert_same_weights(weights(run / "model_final.pth"), weights(undisturbed / "model_final.pth"))


def test_two_processes_stop_after_the_same_step(train_net, tmp_path):
    process = train_net(
        tmp_path, "--num-gpus", "2", "SOLVER.MAX_ITER", "100000", "SOLVER.CHECKPOINT_PERIOD", "15"
    )
    wait_for(tmp_path / "model_0000014.pth", process)
    process.send_signal(signal.SIGTERM)  # the parent passes it on to its children
    output = process.communicate()[0]
    assert process.returncode == 143, output
    done = re.search(r"Stopped by SIGTERM after (\d+) of 100000 iterations", output)
    assert done, output
    assert (tmp_path / f"model_{int(done[1]) - 1:07d}.pth").exists()
    assert "Traceback" not in output


def test_a_damaged_last_checkpoint_falls_back_and_still_ends_alike(tiny, tmp_path):
    run = tmp_path / "run"
    tiny(run)
    final = weights(run / "model_final.pth")
    (run / "result.json").unlink()
    newest = run / "model_0000011.pth"
    newest.write_bytes(newest.read_bytes()[:-100])
    (run / "model_0000011.pth.123.partial").write_bytes(b"what a killed writer leaves")
    tiny(run, resume=True)
    assert "model_0000011.pth is damaged" in (run / "log.txt").read_text()
    assert_same_weights(weights(run / "model_final.pth"), final)
    assert not list(run.glob("*.partial"))


def test_resuming_a_finished_run_changes_nothing(tiny, tmp_path):
    metrics = tiny(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir() if p.name != "log.txt"}
    assert tiny(tmp_path, resume=True) == pytest.approx(metrics, nan_ok=True)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.iterdir() if p.name != "log.txt"}


def test_a_run_stopped_between_training_and_evaluation_is_evaluated(tiny, tmp_path):
    metrics = tiny(tmp_path)
    (tmp_path / "result.json").unlink()
    assert tiny(tmp_path, resume=True) == pytest.approx(metrics, nan_ok=True)
    assert (tmp_path / "result.json").exists()


def test_a_run_killed_before_its_first_checkpoint_starts_again_and_says_so(tiny, tmp_path):
    tiny(tmp_path)
    final = weights(tmp_path / "model_final.pth")
    for path in tmp_path.iterdir():
        if path.name not in ("config.yaml", "log.txt"):
            path.unlink()
    tiny(tmp_path, resume=True)
    assert "starts from the beginning" in (tmp_path / "log.txt").read_text()
    assert_same_weights(weights(tmp_path / "model_final.pth"), final)


def test_resume_in_an_empty_folder_is_an_error(tiny, tmp_path):
    with pytest.raises(FileNotFoundError, match="Nothing to resume.*config.yaml"):
        tiny(tmp_path / "nothing", resume=True)


def test_resume_with_another_config_names_the_keys_that_differ(tiny, tmp_path):
    tiny(tmp_path)
    with pytest.raises(ValueError, match=r"SOLVER.BASE_LR: 0.01 there, 0.5 now") as error:
        tiny(tmp_path, "SOLVER.BASE_LR", 0.5, "DATALOADER.NUM_WORKERS", 1, resume=True)
    assert "NUM_WORKERS" not in str(error.value)


@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_a_new_run_never_overwrites_another(tiny, tmp_path, state):
    tiny(tmp_path)
    if state == "unfinished":
        (tmp_path / "result.json").unlink()
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=rf"already holds an? {state} run.*--resume"):
        tiny(tmp_path, "SOLVER.BASE_LR", 0.5)
    assert before == {p: p.read_bytes() for p in tmp_path.iterdir()}
