"""On one of several GPUs, all that names none is that one."""

import contextlib
import sys

import pytest
import torch

from fakd.config import load_config
from fakd.engine import (
    SharedTeacherRun,
    evaluate,
    evaluate_weights,
    run,
    run_side_by_side,
    shared_teacher,
)
from fakd.engine.device import on_device


class Reached(BaseException):
    """The work begins."""


@pytest.mark.parametrize(("device", "entered"), [("cuda:1", [1]), ("cuda", []), ("cpu", [])])
def test_a_numbered_gpu_becomes_the_current_one(monkeypatch, device, entered):
    seen = []

    @contextlib.contextmanager
    def current(given):
        seen.append(given.index)
        yield

    monkeypatch.setattr(torch.cuda, "device", current)
    with on_device(device):
        assert seen == entered


@pytest.mark.parametrize(
    ("module", "start"),
    [
        ("main", run),
        ("evaluate", evaluate),
        ("evaluate", lambda cfg: evaluate_weights(cfg, "", "")),
        ("shared_teacher", lambda cfg: run_side_by_side([SharedTeacherRun(cfg)])),
    ],
)
def test_whatever_computes_does_so_on_its_device(monkeypatch, tmp_path, module, start):
    def reached(device):
        raise Reached(device)

    monkeypatch.setattr(sys.modules[f"fakd.engine.{module}"], "on_device", reached)
    cfg = load_config("configs/toyscenes/student.yaml", ["OUTPUT_DIR", str(tmp_path), "MODEL.DEVICE", "cpu"])
    monkeypatch.setattr(shared_teacher, "sharing_key", lambda cfg: "one")
    with pytest.raises(Reached, match="cpu"):
        start(cfg)
