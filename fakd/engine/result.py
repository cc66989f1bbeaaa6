"""``result.json``: metrics and provenance of a finished run."""

import datetime
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from . import provenance
from .hooks import unwrapped
from .metrics import Metrics
from .run_folder import RunFolder
from .trainer import Trainer

logger = logging.getLogger(__name__)


def finish_run(
    trainer: Trainer, folder: RunFolder, method: str, config_file: str, packed: int = 1
) -> dict[str, float]:
    """Writes what a trained run reached; the metrics that :func:`fakd.engine.run` returns.

    Args:
        trainer: after its training.
        folder: of the run.
        method: column of a report; default the recipe, or "student".
        config_file: noted in the result.
        packed: students that shared this process, and so its time and memory.

    Raises:
        ValueError: on the first rank, when all is written: TEST.EXPECTED_RESULTS expects other metrics.
    """
    cfg, best, metrics = trainer.cfg, trainer.best, trainer.last_metrics
    if comm.is_main_process():
        name = method or cfg.KD.RECIPE or "student"
        result = build_result(cfg, unwrapped(trainer.model), metrics, name, config_file) | {
            "train_dataset": ", ".join(cfg.DATASETS.TRAIN),
            "iterations": trainer.max_iter,
            "batch_size": cfg.SOLVER.IMS_PER_BATCH,
            "crop": list(cfg.INPUT.CROP.SIZE),
            "best": {"mIoU": best.best_metric, "iteration": best.best_iter} if best else None,
            "seconds_per_iteration": trainer.clock.seconds_per_iteration(),
            "wall_clock": trainer.clock.wall_clock(),
            "packed": packed,
            "peak_memory_mb": trainer.memory.peak_mb,
            "weights": "model_final.pth",
        }
        mious = {"model_final.pth": metrics.first.get("mIoU")}
        if best is not None:
            mious["model_best.pth"] = best.best_metric
        folder.write_result(result, mious, trainer.last_confusion)
        logger.info("\n" + metrics.table())
        _check_expected(cfg.TEST.EXPECTED_RESULTS, metrics.first)
    return metrics.flat()


def _check_expected(expected: Sequence[tuple[str, str, float, float]], found: Mapping[str, float]) -> None:
    values = [(name, found.get(name, math.nan), value, margin) for _, name, value, margin in expected]
    missed = [
        f"{name} is {own:.2f}, not {value} ± {margin}"
        for name, own, value, margin in values
        if not abs(own - value) <= margin
    ]
    if missed:
        raise ValueError(f"TEST.EXPECTED_RESULTS on the first test set: {'; '.join(missed)}.")


def build_result(
    cfg: CfgNode, network: nn.Module, metrics: Metrics, method: str, config_file: str
) -> dict[str, Any]:
    """The part of ``result.json`` that any network has, however it was trained; plain values only."""
    height, width = cfg.INPUT.CROP.SIZE
    return {
        "name": method,
        "method": method,
        "seed": cfg.SEED,
        "dataset": next(iter(cfg.DATASETS.TEST), None),
        "config_file": config_file,
        "output_dir": cfg.OUTPUT_DIR,
        **metrics.to_result(),
        **provenance.collect(getattr(network, "student", network), (height, width), cfg.MODEL.DEVICE),
        "weights": cfg.MODEL.WEIGHTS,
        "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
