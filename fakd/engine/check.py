"""Mistakes in a config that would otherwise come up late, or in words that do not name their key."""

import difflib

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.utils import comm


def check_config(cfg: CfgNode) -> None:
    """Whether a config can train.

    Raises:
        KeyError: there is no such dataset.
        ValueError: a value is out of its range, two contradict, or the device cannot be used.
    """
    if cfg.TEST.PRECISE_BN.ENABLED:
        raise ValueError("TEST.PRECISE_BN is not supported: what it draws would be lost on resume.")
    solver = cfg.SOLVER
    for key in ("MAX_ITER", "IMS_PER_BATCH", "BASE_LR"):
        if solver[key] <= 0:
            raise ValueError(f"SOLVER.{key} is {solver[key]}, but must be positive.")
    if min(cfg.INPUT.CROP.SIZE) < 1:
        raise ValueError(f"INPUT.CROP.SIZE is {tuple(cfg.INPUT.CROP.SIZE)}, but must be positive.")
    parts = comm.get_world_size() * solver.ACCUMULATE
    if solver.ACCUMULATE < 1 or solver.IMS_PER_BATCH % parts:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH ({solver.IMS_PER_BATCH}) must be a multiple of processes x "
            f"SOLVER.ACCUMULATE ({comm.get_world_size()} x {solver.ACCUMULATE})."
        )
    if not cfg.OUTPUT_DIR:
        raise ValueError("OUTPUT_DIR is empty: name the folder of the run.")
    if not cfg.DATASETS.TRAIN:
        raise ValueError("DATASETS.TRAIN is empty: there is nothing to train on.")
    check_place(cfg)


def check_place(cfg: CfgNode) -> None:
    """Whether the datasets and the device of a config are there.

    Raises:
        KeyError, ValueError: see :func:`check_config`.
    """
    known = DatasetCatalog.list()
    for split in ("TRAIN", "TEST"):
        for name in cfg.DATASETS[split]:
            if name not in known:
                near = ", ".join(difflib.get_close_matches(name, known)) or "none"
                raise KeyError(
                    f"DATASETS.{split}: there is no dataset '{name}'. Near: {near}. Data of your own: "
                    "DATASETS.CUSTOM."
                )
    try:
        torch.empty(1, device=cfg.MODEL.DEVICE)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"MODEL.DEVICE is '{cfg.MODEL.DEVICE}', which cannot be used here: {reason} MODEL.DEVICE cpu can."
        ) from error
