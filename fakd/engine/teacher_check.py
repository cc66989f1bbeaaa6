"""Compares a teacher's mIoU with the recorded one before training."""

import json
import logging
import math
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from detectron2.evaluation import inference_on_dataset
from detectron2.utils import comm
from pydantic import BaseModel, ConfigDict
from torch import nn

from fakd.checkpoint import zoo
from fakd.data import build_test_loader
from fakd.data.selection import evenly_spaced
from fakd.evaluation import SegEvaluator, as_tested
from fakd.files import atomic_write
from fakd.validation import parse, read_json

logger = logging.getLogger(__name__)


class _Recorded(BaseModel):
    model_config = ConfigDict(strict=True)

    mIoU: float
    dataset: str


def record_miou(weights: str | Path, miou: float, dataset: str) -> None:
    """Writes beside a weights file what the model reached; :func:`check_teacher` reads it."""
    with atomic_write(Path(weights).with_suffix(".json"), "w") as file:
        json.dump({"mIoU": miou, "dataset": dataset}, file)


def recorded_miou(cfg: CfgNode) -> float | None:
    """The recorded mIoU of the teacher, in percent; None when nothing is recorded.

    Raises:
        ValueError: what lies beside its weights is no such record.
    """
    if cfg.KD.TEACHER.MIOU > 0:
        return cfg.KD.TEACHER.MIOU
    sidecar = Path(cfg.KD.TEACHER.WEIGHTS).with_suffix(".json")
    if sidecar.is_file():
        entry: dict[str, Any] | None = parse(_Recorded, read_json(sidecar), sidecar).model_dump()
    else:
        entry = zoo.find(sidecar.with_suffix(".pth"))
    # A published network's accuracy on its own data does not carry over to other data.
    if entry and entry["dataset"] in zoo.datasets() and not cfg.DATASETS.TEST[0].startswith(entry["dataset"]):
        return None
    return entry["mIoU"] if entry and math.isfinite(entry["mIoU"]) else None


def check_teacher(teacher: nn.Module, cfg: CfgNode) -> None:
    """Evaluates the teacher on some images and compares with what is recorded.

    A wrong channel order, class order or normalisation leaves a network that runs and teaches nonsense.

    Args:
        teacher: the frozen network, with ``input_format``.
        cfg: of the distillation (KD.TEACHER, DATASETS.TEST). All ranks call this together.

    Raises:
        ValueError: its mIoU is below KD.TEACHER.CHECK_RATIO times the recorded one.
    """
    options = cfg.KD.TEACHER
    if options.BACKBONE or options.CHECK_IMAGES <= 0 or not cfg.DATASETS.TEST:
        return
    expected = recorded_miou(cfg)
    if expected is None:
        logger.warning(
            f"The teacher was not checked: nothing is recorded beside '{options.WEIGHTS}'. Set "
            "KD.TEACHER.MIOU to the mIoU it is known to reach."
        )
        return
    measured, num_images = _evaluate_some(teacher, cfg, options.CHECK_IMAGES)
    found = f"mIoU {measured:.2f} on {num_images} images of {cfg.DATASETS.TEST[0]}"
    if not measured >= options.CHECK_RATIO * expected:
        raise ValueError(
            f"The teacher '{options.WEIGHTS}' reaches {found}, but {expected:.2f} is recorded for it. Check "
            f"'{options.CONFIG_FILE}' (INPUT.FORMAT, MODEL.PIXEL_MEAN, order of classes) and "
            "KD.TEACHER.WEIGHTS. KD.TEACHER.CHECK_IMAGES 0 turns this check off."
        )
    logger.info(f"The teacher reaches {found}; recorded: {expected:.2f}.")


def _evaluate_some(teacher: nn.Module, cfg: CfgNode, num_images: int) -> tuple[float, int]:
    """mIoU in percent, the same on all ranks, and on how many images."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.FORMAT = teacher.input_format  # evaluated as itself, not behind the student's reader
    name = cfg.DATASETS.TEST[0]
    records = get_detection_dataset_dicts([name], filter_empty=False)
    chosen = evenly_spaced(records, num_images)
    loader = build_test_loader(cfg, name, chosen)
    results = inference_on_dataset(as_tested(teacher, cfg), loader, SegEvaluator(name))
    miou = results["sem_seg"]["mIoU"] if comm.is_main_process() else 0.0
    return comm.all_gather(miou)[0], len(chosen)
