"""The GPU's half hour, in miniature on the CPU."""

import sys
import time
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is not installed with the package

gpu = pytest.importorskip("benchmarks.gpu", reason="needs detectron2")

from fakd.files import read_lines  # noqa: E402


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    return gpu.Place(torch.device("cpu"), True, tmp_path, time.monotonic() + 600)


def lines(place):
    return {line["name"]: line for line in read_lines(place.output / "results.jsonl")}


@pytest.mark.parametrize("name", ["losses equal", "GradScaler", "resume"])
def test_what_is_right_is_said_to_be_and_not_done_twice(place, name):
    assert gpu.work_through(place, name)
    ((found, line),) = lines(place).items()
    assert name in found and line["ok"] and line["machine"]
    written = (place.output / "results.jsonl").read_bytes()
    assert gpu.work_through(place, name)
    assert (place.output / "results.jsonl").read_bytes() == written


def test_steps_and_losses_have_their_costs(place):
    assert gpu.work_through(place, "4 images, 19 classes")
    found = lines(place)
    assert len(found) == 4
    parts = found["step, 4 images, 19 classes, FAST and AMP"]["ms and peak MB"]
    assert {"teacher", "FAKDChannel", "optimizer"} <= parts.keys() and "data" not in parts
    losses = found["losses, 4 images, 19 classes"]["losses"]
    assert {"PD", "CWD", "FAKDPixel", "FAKDChannel"} <= losses.keys()
    assert all(cost["ms"] > 0 and cost["floor"] > 0 for cost in losses.values())


def test_a_loss_that_is_wrong_on_the_device_is_found(place, monkeypatch):
    compute, calls = gpu.value_and_gradients, []

    def of_a_wrong_device(loss, *args):
        got = compute(loss, *args)
        calls.append(loss)
        return [1.001 * x for x in got] if type(loss).__name__ == "PD" and len(calls) % 3 == 2 else got

    monkeypatch.setattr(gpu, "value_and_gradients", of_a_wrong_device)
    assert not gpu.work_through(place, "losses equal")
    assert lines(place)["losses equal the CPU's"]["wrong"] == ["PD"]


def test_an_error_is_written_and_tried_again(place, monkeypatch):
    def fails(place):
        raise RuntimeError("no luck")

    with monkeypatch.context() as patch:
        patch.setattr(gpu, "scaled_steps", fails)
        assert not gpu.work_through(place, "GradScaler")
    assert lines(place)["float16 with GradScaler"]["error"] == "RuntimeError: no luck"
    assert gpu.work_through(place, "GradScaler")
    assert lines(place)["float16 with GradScaler"]["ok"]


def test_it_ends_with_its_time(place, capsys):
    assert not gpu.work_through(gpu.Place(place.device, True, place.output, time.monotonic()))
    assert "the same command goes on" in capsys.readouterr().out
    assert not (place.output / "results.jsonl").exists()


@pytest.mark.slow
def test_all_of_it(place):
    assert gpu.work_through(place), lines(place)
    assert len(lines(place)) == len(list(gpu.stages(place)))
