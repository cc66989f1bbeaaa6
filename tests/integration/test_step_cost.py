"""What the parts of a step cost, and what is said of it. No time is asserted."""

import sys

import pytest
import torch

from fakd.commands import benchmark
from fakd.engine.step_cost import (
    BACKWARD,
    CROSS_ENTROPY,
    DATA,
    FORWARD,
    OPTIMIZER,
    TEACHER,
    Cost,
    advice,
    step_costs,
)

from .conftest import CONFIG, tiny_config


@pytest.mark.parametrize("mixed", [False, True])
def test_every_part_of_a_distillation_has_its_cost(teacher, mixed, tmp_path, monkeypatch):
    """With the optimizer's steps of a GPU, after which a graph serves no more."""
    sgd = torch.optim.SGD
    monkeypatch.setattr(torch.optim, "SGD", lambda *args, fused, **rest: sgd(*args, foreach=True, **rest))
    cfg = tiny_config(tmp_path / "none", *teacher, "SOLVER.AMP.ENABLED", mixed, recipe="fakd")
    costs = step_costs(cfg, rounds=1)
    assert list(costs) == [DATA, TEACHER, FORWARD, CROSS_ENTROPY, *cfg.KD.LOSSES, BACKWARD, OPTIMIZER]
    assert all(cost.ms > 0 for cost in costs.values())
    assert costs[FORWARD].peak_mb > 0 and costs[cfg.KD.LOSSES[0]].peak_mb > 0
    assert not (tmp_path / "none").exists()


def test_the_student_alone_through_the_command(monkeypatch, capfd):
    words = ["--config-file", CONFIG, "--recipe", "student", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["fakd benchmark", "step", *words])
    benchmark.main()
    said, noise = capfd.readouterr()
    assert "profiler" not in noise
    assert all(f"| {name} " in said for name in (DATA, FORWARD, CROSS_ENTROPY, BACKWARD, OPTIMIZER, "step"))
    assert TEACHER not in said.split("\n\n")[0]


@pytest.mark.parametrize(
    ("name", "opts", "hint"),
    [
        (DATA, ["DATALOADER.NUM_WORKERS", 0], "data 80 %: raise DATALOADER.NUM_WORKERS to 5"),
        (DATA, ["DATALOADER.NUM_WORKERS", 2], "data 80 %: raise DATALOADER.NUM_WORKERS to 10"),
        (TEACHER, [], "teacher 80 %: KD.TEACHER.FAST"),
        (BACKWARD, [], "SOLVER.AMP.ENABLED True or MODEL.CHANNELS_LAST True"),
        (FORWARD, ["SOLVER.AMP.ENABLED", True, "MODEL.CHANNELS_LAST", True], "a smaller INPUT.CROP.SIZE"),
        (OPTIMIZER, [], "SOLVER.IMS_PER_BATCH"),
        ("CWD", [], "CWD 80 %: it is the price of this loss"),
    ],
)
def test_the_largest_part_and_the_key_that_helps(name, opts, hint):
    costs = {"rest": Cost(20.0, 1.0), name: Cost(80.0, 1.0)}
    assert hint in advice(costs, tiny_config("", *opts))
