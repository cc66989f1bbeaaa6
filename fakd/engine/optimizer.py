"""The optimizer and the learning rate of a config."""

import re

import torch
from detectron2.config import CfgNode
from detectron2.solver import LRMultiplier, WarmupParamScheduler, build
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from fvcore.common.param_scheduler import ParamScheduler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

_HEAD = re.compile(r"(?:^|\.)(?:decode|auxiliary)_head\.")


def build_optimizer(cfg: CfgNode, model: torch.nn.Module) -> Optimizer:
    """``SOLVER.OPTIMIZER`` over the trainable parameters, the heads at ``HEAD_LR_FACTOR`` times the rate.

    Raises:
        ValueError: the optimizer is not one of those known.
    """
    solver = cfg.SOLVER
    factor = solver.HEAD_LR_FACTOR
    params = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        lr_factor_func=None if factor == 1 else lambda name: factor if _HEAD.search(name) else 1.0,
    )
    # On a GPU a fused step would undo the scaling of float16's gradients after they are clipped.
    kind = "fused" if cfg.MODEL.DEVICE == "cpu" else "foreach"
    common = {"lr": solver.BASE_LR, "weight_decay": solver.WEIGHT_DECAY, kind: True}
    optimizer: Optimizer
    if solver.OPTIMIZER == "SGD":
        optimizer = torch.optim.SGD(params, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV, **common)
    elif solver.OPTIMIZER == "AdamW":
        optimizer = torch.optim.AdamW(params, **common)
    else:
        raise ValueError(f"SOLVER.OPTIMIZER is '{solver.OPTIMIZER}'; choose SGD or AdamW.")
    return maybe_add_gradient_clipping(cfg, optimizer)


class PolyScheduler(ParamScheduler):
    """``floor + (1 - floor) * (1 - where) ** power``: the usual decay of segmentation, with a floor."""

    def __init__(self, power: float, floor: float) -> None:
        self._power, self._floor = power, floor

    def __call__(self, where: float) -> float:
        return self._floor + (1 - self._floor) * (1 - where) ** self._power


def build_lr_scheduler(cfg: CfgNode, optimizer: Optimizer) -> LRScheduler:
    """MIN_LR + (BASE_LR - MIN_LR) (1 - t / MAX_ITER)^POLY_POWER; detectron2's if POLY_POWER is 0."""
    solver = cfg.SOLVER
    if solver.POLY_POWER == 0:
        return build.build_lr_scheduler(cfg, optimizer)
    schedule: ParamScheduler = PolyScheduler(solver.POLY_POWER, solver.MIN_LR / solver.BASE_LR)
    if solver.WARMUP_ITERS > 0:
        schedule = WarmupParamScheduler(
            schedule,
            solver.WARMUP_FACTOR,
            min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0),
            solver.WARMUP_METHOD,
            solver.RESCALE_INTERVAL,
        )
    return LRMultiplier(optimizer, schedule, solver.MAX_ITER)
