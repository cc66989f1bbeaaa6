"""The optimizer of a config."""

import re

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping

_HEAD = re.compile(r"(?:^|\.)(?:decode|auxiliary)_head\.")


def build_optimizer(cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
    """``SOLVER.OPTIMIZER`` over what asks for a gradient, the heads at ``HEAD_LR_FACTOR`` times the rate.

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
    common = {"lr": solver.BASE_LR, "weight_decay": solver.WEIGHT_DECAY, "foreach": True}
    optimizer: torch.optim.Optimizer
    if solver.OPTIMIZER == "SGD":
        optimizer = torch.optim.SGD(params, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV, **common)
    elif solver.OPTIMIZER == "AdamW":
        optimizer = torch.optim.AdamW(params, **common)
    else:
        raise ValueError(f"SOLVER.OPTIMIZER is '{solver.OPTIMIZER}'; choose SGD or AdamW.")
    return maybe_add_gradient_clipping(cfg, optimizer)
