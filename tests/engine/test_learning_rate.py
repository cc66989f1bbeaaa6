"""The learning rate over a run."""

import pytest
import torch

from fakd.config import load_config
from fakd.engine import Trainer


def rates(*opts, steps=100):
    cfg = load_config(opts=["SOLVER.MAX_ITER", str(steps), "SOLVER.BASE_LR", "0.02", *map(str, opts)])
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.SOLVER.BASE_LR)
    scheduler = Trainer.build_lr_scheduler(cfg, optimizer)
    result = []
    for _ in range(steps):
        result.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return result


def test_poly_with_a_floor():
    expected = [1e-4 + (0.02 - 1e-4) * (1 - t / 100) ** 0.9 for t in range(100)]
    assert rates("SOLVER.MIN_LR", 1e-4) == pytest.approx(expected)


def test_poly_ends_near_zero_without_a_floor():
    assert rates()[0] == 0.02 and 0 < rates()[-1] < 0.02 * 0.02


def test_warm_up_rises_to_where_the_decay_is():
    warm, plain = rates("SOLVER.WARMUP_ITERS", 10), rates()
    assert warm[0] == pytest.approx(0.02 / 1000) and warm[:10] == sorted(warm[:10])
    assert warm[11:] == pytest.approx(plain[11:])


def test_power_zero_leaves_detectron2_s_schedule():
    values = rates("SOLVER.POLY_POWER", 0.0, "SOLVER.STEPS", "(50,)")
    assert values[:50] == pytest.approx([0.02] * 50) and values[50:] == pytest.approx([0.002] * 50)
