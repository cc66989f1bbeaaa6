"""Checks of a config before training, with messages that name the key."""

import difflib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm
from torch import nn

from ..config.checks import check_values
from ..config.defaults import KEYS
from ..data.datasets.classes import check_order
from ..evaluation import SegEvaluator, as_tested
from ..registry import DISTILL_LOSS_REGISTRY
from .compiling import missing_for_compiling


def check_config(cfg: CfgNode) -> None:
    """Checks that a config can train.

    Raises:
        KeyError: there is no such dataset.
        FileNotFoundError: the teacher's run is not finished.
        ValueError: a value is out of its range, two contradict, or the device cannot be used.
    """
    check_place(cfg)
    for wrong, message in _contradictions(cfg):
        if wrong:
            raise ValueError(message)
    teacher = cfg.KD.TEACHER
    for file in (teacher.CONFIG_FILE, teacher.WEIGHTS) if teacher.RUN and cfg.KD.LOSSES else ():
        if not Path(file).is_file():
            raise FileNotFoundError(
                f"KD.TEACHER.RUN is '{teacher.RUN}', but no finished run lies there: there is no '{file}'. "
                "Train the teacher first, or to its end with --resume."
            )


def _contradictions(cfg: CfgNode) -> Iterator[tuple[bool, str]]:
    """Every rule that concerns several keys: whether it is broken, and the message."""
    yield not cfg.OUTPUT_DIR, "OUTPUT_DIR is empty: name the folder of the run."
    yield from _without_labels(cfg)
    yield from _of_training(cfg)
    yield from _of_teacher(cfg)
    head, size = cfg.MODEL.SEM_SEG_HEAD, tuple(cfg.INPUT.BASE_SIZE)
    yield (
        head.IGNORE_VALUE < head.NUM_CLASSES,
        f"MODEL.SEM_SEG_HEAD.IGNORE_VALUE is {head.IGNORE_VALUE}, which is one of the "
        f"{head.NUM_CLASSES} classes (NUM_CLASSES): its pixels would not be learned.",
    )
    yield (
        any(size) and not all(size),
        f"INPUT.BASE_SIZE is {size}: both are positive, or both 0 for the images' own sizes.",
    )
    for expected in cfg.TEST.EXPECTED_RESULTS:
        kinds = [type(part) for part in expected] if isinstance(expected, list | tuple) else []
        yield (
            kinds[:2] != [str, str] or len(kinds) != 4 or not set(kinds[2:]) <= {int, float},
            f"TEST.EXPECTED_RESULTS holds {expected!r}, but must hold [task, metric, value, tolerance], such "
            "as ['sem_seg', 'mIoU', 40.0, 0.5].",
        )
        yield (
            expected[0] != "sem_seg" or not cfg.DATASETS.TEST,
            f"TEST.EXPECTED_RESULTS expects '{expected[1]}' of '{expected[0]}', but what is tested is "
            f"'sem_seg' on the first of DATASETS.TEST, {tuple(cfg.DATASETS.TEST)}.",
        )


def _of_training(cfg: CfgNode) -> Iterator[tuple[bool, str]]:
    solver = cfg.SOLVER
    processes, reference = comm.get_world_size(), solver.REFERENCE_WORLD_SIZE
    yield (
        reference > 0 and solver.IMS_PER_BATCH % reference != 0,
        f"SOLVER.IMS_PER_BATCH ({solver.IMS_PER_BATCH}) must be a multiple of SOLVER.REFERENCE_WORLD_SIZE "
        f"({reference}).",
    )
    yield (
        reference in (0, processes) and solver.IMS_PER_BATCH % (processes * solver.ACCUMULATE) != 0,
        f"SOLVER.IMS_PER_BATCH ({solver.IMS_PER_BATCH}) must be a multiple of processes x SOLVER.ACCUMULATE "
        f"({processes} x {solver.ACCUMULATE}).",
    )
    compiles = solver.COMPILE or "compile" in cfg.KD.TEACHER.FAST
    missing = missing_for_compiling(cfg.MODEL.DEVICE) if compiles else ""
    yield bool(missing), f"SOLVER.COMPILE or KD.TEACHER.FAST asks for torch.compile, but {missing}."
    yield (
        solver.COMPILE and cfg.MODEL.ACTIVATION_CHECKPOINTING,
        "SOLVER.COMPILE and MODEL.ACTIVATION_CHECKPOINTING are both True: what is compiled cannot be "
        "checkpointed. Set one of them to False.",
    )
    yield (
        solver.NESTEROV and solver.MOMENTUM == 0,
        "SOLVER.NESTEROV needs a SOLVER.MOMENTUM above 0.",
    )
    yield (
        cfg.DEPLOY.QAT.ENABLED and solver.EMA_DECAY > 0,
        "DEPLOY.QAT.ENABLED: the ranges of int8 are moving averages already. Set SOLVER.EMA_DECAY 0.0.",
    )
    for name in ("MIN_LR", "BASE_LR_END"):
        yield (
            solver[name] > solver.BASE_LR,
            f"SOLVER.{name} is {solver[name]}, which is above SOLVER.BASE_LR, {solver.BASE_LR}.",
        )
    others = ("LR_SCHEDULER_NAME", "STEPS", "GAMMA", "NUM_DECAYS", "BASE_LR_END")
    for name in others if solver.POLY_POWER > 0 else ():
        yield (
            solver[name] != KEYS[f"SOLVER.{name}"].default,
            f"SOLVER.{name} is of a schedule that SOLVER.POLY_POWER {solver.POLY_POWER} replaces. Set "
            "SOLVER.POLY_POWER 0.0 to use SOLVER.LR_SCHEDULER_NAME.",
        )


def _of_teacher(cfg: CfgNode) -> Iterator[tuple[bool, str]]:
    teacher = cfg.KD.TEACHER
    yield (
        len(set(cfg.KD.LOSSES)) < len(cfg.KD.LOSSES),
        f"KD.LOSSES names a loss twice: {', '.join(cfg.KD.LOSSES)}. Its factor is KD.<Name>.WEIGHT.",
    )
    yield (
        bool(teacher.BACKBONE and (teacher.CONFIG_FILE or teacher.RUN)),
        f"KD.TEACHER.BACKBONE is '{teacher.BACKBONE}' and KD.TEACHER.CONFIG_FILE '{teacher.CONFIG_FILE}': "
        "two teachers. Leave one of them out.",
    )
    named = next((name for name in ("RUN", "BACKBONE") if teacher[name]), "")
    yield (
        bool(named) and not cfg.KD.LOSSES and not cfg.KD.RECIPE,
        f"KD.TEACHER.{named or 'RUN'} names a teacher, but there is no method that learns from it: give "
        "--recipe (KD.RECIPE) or KD.LOSSES; or --recipe student to train without it.",
    )
    fast = teacher.FAST
    yield (
        len(fast) > 1 and bool({"auto", "off"} & set(fast)) or {"bf16", "fp16"} <= set(fast),
        f"KD.TEACHER.FAST is {', '.join(fast)}: name auto or off alone, and one half precision at most.",
    )


def _without_labels(cfg: CfgNode) -> Iterator[tuple[bool, str]]:
    """As :func:`_contradictions`, of images without labels."""
    train, others, share = cfg.DATASETS.TRAIN, cfg.DATASETS.UNLABELLED, cfg.DATALOADER.UNLABELLED_SHARE
    yield not train and not others, "DATASETS.TRAIN is empty: there is nothing to train on."
    yield (
        not train and share < 1,
        f"DATASETS.TRAIN is empty, but DATALOADER.UNLABELLED_SHARE is {share}: name a labelled set, or set "
        "it to 1 to train on DATASETS.UNLABELLED alone.",
    )
    if not others or share < 1:
        return
    yield (
        not cfg.KD.LOSSES,
        "DATALOADER.UNLABELLED_SHARE is 1, so no picture has a label, and without KD.LOSSES nothing is "
        "learnt from the others. Set it below 1, or choose a recipe that needs no labels, such as pd.",
    )
    if cfg.KD.PSEUDO_CONFIDENCE < 1:
        return
    known = dict(DISTILL_LOSS_REGISTRY)
    for name in cfg.KD.LOSSES:
        without = ", ".join(sorted(other for other, loss in known.items() if not loss.needs_labels))
        yield (
            name in known and known[name].needs_labels,
            f"KD.LOSSES: {name} reads labels, but DATALOADER.UNLABELLED_SHARE is 1, so no picture has one. "
            "Set it below 1, or KD.PSEUDO_CONFIDENCE below 1 to take the teacher's classes for labels, or "
            f"choose from those that read none: {without}.",
        )


def check_place(cfg: CfgNode) -> None:
    """Checks that the values of a config are in range, and its datasets and device available.

    Raises:
        KeyError, ValueError: see :func:`check_config`.
    """
    check_values(cfg)
    as_tested(nn.Identity(), cfg)  # refuses windows that leave pixels out
    if len(options := cfg.MODEL.BACKBONE.TIMM_OPTIONS) % 2:
        raise ValueError(
            f"MODEL.BACKBONE.TIMM_OPTIONS is {options}, but must hold name, value, name, value, ..."
        )
    known = DatasetCatalog.list()
    for split in ("TRAIN", "TEST", "UNLABELLED"):
        for name in cfg.DATASETS[split]:
            if name not in known:
                near = ", ".join(difflib.get_close_matches(name, known)) or "none"
                raise KeyError(
                    f"DATASETS.{split}: there is no dataset '{name}'. Near: {near}. Data of your own: "
                    "DATASETS.CUSTOM."
                )
    if twice := [name for name, times in Counter(cfg.DATASETS.TEST).items() if times > 1]:
        raise ValueError(f"DATASETS.TEST names {', '.join(twice)} twice: name each set once.")
    check_device(cfg.MODEL.DEVICE)


def check_device(device: str, name: str = "MODEL.DEVICE") -> None:
    """Checks that PyTorch can compute on a device.

    Args:
        device: as torch names it.
        name: what a message calls the setting.

    Raises:
        ValueError: it cannot.
    """
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{name} is '{device}', which cannot be used here: {reason} {name} cpu can."
        ) from error


def check_test_sets(cfg: CfgNode) -> None:
    """Checks that a training can be evaluated, which would fail at its end; lists all of DATASETS.TEST.

    Raises:
        ValueError, OSError: the files of a set are not there or have no labels, or it has another number of
            classes or these in another order.
    """
    number = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    for name in cfg.DATASETS.TEST:
        SegEvaluator(name)  # refuses pictures without labels
        classes = MetadataCatalog.get(name).stuff_classes
        if len(classes) != number:
            raise ValueError(
                f"DATASETS.TEST names '{name}', which has {len(classes)} classes, but "
                f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {number}. Name a test set of the training's classes."
            )
        check_order(cfg.DATASETS.CLASSES, classes, f"DATASETS.TEST: '{name}'")
