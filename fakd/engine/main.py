"""One run: from a config to metrics."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from torch import nn
from tqdm import tqdm

from fakd.checkpoint import load_teacher
from fakd.data.datasets.custom import register_custom
from fakd.files import remove_leftovers

from . import provenance
from .check import check_config, check_place
from .hooks import unwrapped
from .logs import run_logging
from .result import (
    Metrics,
    build_network_result,
    build_result,
    class_table,
    flat_metrics,
    metrics_by_set,
    unnested,
)
from .run_folder import RunFolder
from .signals import stop_on_signals
from .teacher_check import check_teacher, record_miou
from .trainer import Trainer

logger = logging.getLogger(__name__)


def run(
    cfg: CfgNode,
    resume: bool = False,
    eval_only: bool = False,
    *,
    method: str = "",
    config_file: str = "",
    bar: tqdm | None = None,
    quiet: bool = False,
    extra_hooks: Sequence[HookBase] = (),
    max_seconds: float = math.inf,
) -> dict[str, float]:
    """Trains and evaluates, or continues to, or only evaluates; called by every rank.

    Args:
        cfg: from :func:`fakd.config.load_config`.
        resume: continue the run in OUTPUT_DIR. A finished one is left as it is.
        eval_only: evaluate MODEL.WEIGHTS, or else the final weights in OUTPUT_DIR.
        method: column of a report; default the recipe, or "student".
        config_file: noted in the result.
        bar: progress bar to move along, MAX_ITER in all.
        quiet: keep the console for the bar.
        extra_hooks: called after evaluation and saving, on the first rank.
        max_seconds: end, as if MAX_ITER were reached, once training took so long.

    Returns:
        mIoU, mAcc, aAcc and per class IoU-<class> and Acc-<class> in percent on the first test set, those of
        further sets as <set>/<metric>; empty on ranks other than the first.

    Raises:
        ValueError, OSError, KeyError: the config, the folder or the data is not usable; see the message.
        FloatingPointError: a loss or weight is not finite.
        SystemExit: SIGTERM or SIGINT came; everything is saved.
    """
    register_custom(cfg.DATASETS.CUSTOM)  # the config may come from another process
    if eval_only:
        check_place(cfg)
        with stop_on_signals(), run_logging("", quiet, bar):
            by_set = metrics_by_set(cfg, Trainer.test(cfg, load_trained(cfg)))
            logger.info("\n" + class_table(by_set))
        return flat_metrics(by_set)
    check_config(cfg)
    folder = RunFolder(cfg.OUTPUT_DIR)
    folder.check_usable(cfg, resume)
    with stop_on_signals(), folder.lock(), run_logging(cfg.OUTPUT_DIR, quiet, bar):
        folder.check_usable(cfg, resume)  # again: another process may just have left the folder
        comm.synchronize()  # the first rank is about to change what the others have just looked at
        if (result := folder.result()) is not None:
            logger.info(f"The run in '{folder.path}' is finished; nothing to do.")
            return flat_metrics(unnested(result))
        trainer = build_trainer(cfg, folder, resume, bar, extra_hooks, max_seconds)
        trainer.train()
        return finish_run(trainer, folder, method, config_file)


def build_trainer(
    cfg: CfgNode,
    folder: RunFolder,
    resume: bool,
    bar: tqdm | None = None,
    extra_hooks: Sequence[HookBase] = (),
    max_seconds: float = math.inf,
) -> Trainer:
    """The trainer of a run, at the iteration from which it trains; see :func:`run`."""
    logger.info(f"Environment:\n{collect_env_info()}\nConfig:\n{cfg.dump()}")
    if comm.is_main_process():
        remove_leftovers(folder.path)
        folder.write_config(cfg)
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + comm.get_rank())
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    provenance.reset_peak_memory(cfg.MODEL.DEVICE)
    trainer = Trainer(cfg, bar, extra_hooks, max_seconds)
    trainer.resume_or_load(resume)
    if resume and trainer.start_iter == 0:
        logger.warning(
            f"The run in '{folder.path}' had not saved a checkpoint yet: it starts from the beginning."
        )
    teacher = getattr(unwrapped(trainer.model), "teacher", None)
    if teacher is not None and trainer.start_iter == 0:
        check_teacher(teacher.network, cfg)
    return trainer


def finish_run(
    trainer: Trainer, folder: RunFolder, method: str, config_file: str, packed: int = 1
) -> dict[str, float]:
    """Writes what a trained run reached; the metrics that :func:`run` returns.

    Args:
        packed: students that shared this process, and so its time and memory.
    """
    cfg = trainer.cfg
    by_set = metrics_by_set(cfg, trainer.last_results)
    if comm.is_main_process():
        logger.info("\n" + class_table(by_set))
        name = method or cfg.KD.RECIPE or "student"
        _record(cfg, folder, trainer, by_set, build_result(cfg, trainer, by_set, name, config_file, packed))
    return flat_metrics(by_set)


def _record(
    cfg: CfgNode,
    folder: RunFolder,
    trainer: Trainer,
    by_set: dict[str, Metrics],
    result: dict[str, Any],
) -> None:
    """Writes the sidecars that tell a distillation how good this network is, and last what says "done"."""
    if by_set:
        name, metrics = next(iter(by_set.items()))
        record_miou(folder.path / "model_final.pth", metrics["mIoU"], name)
        if trainer.best is not None and trainer.best.best_metric is not None:
            record_miou(folder.path / "model_best.pth", trainer.best.best_metric, name)
        folder.write_confusion({name: counts.tolist() for name, counts in trainer.last_confusion.items()})
    folder.write_result(result)


def evaluate_weights(cfg: CfgNode, method: str, config_file: str) -> None:
    """Evaluates MODEL.WEIGHTS, trained elsewhere, and writes ``result.json`` into OUTPUT_DIR.

    Args:
        cfg: of the network.
        method: column of a report.
        config_file: noted in the result.

    Raises:
        ValueError, OSError, KeyError: see :func:`run`.
    """
    check_place(cfg)
    folder = RunFolder(cfg.OUTPUT_DIR)
    with run_logging(cfg.OUTPUT_DIR, quiet=True, bar=None):
        folder.write_config(cfg)
        network = load_trained(cfg)
        by_set = metrics_by_set(cfg, Trainer.test(cfg, network))
        logger.info("\n" + class_table(by_set))
        folder.write_result(build_network_result(cfg, network, by_set, method, config_file))


def load_trained(cfg: CfgNode, weights: str = "") -> nn.Module:
    """The network that a run trains, with trained weights and no teacher, in evaluation mode.

    Args:
        cfg: of the run; may be that of a distillation.
        weights: file; default MODEL.WEIGHTS, or else the final weights in OUTPUT_DIR.

    Raises:
        FileNotFoundError, ValueError: see :func:`fakd.checkpoint.load_teacher`.
    """
    cfg = cfg.clone()
    cfg.defrost()
    if cfg.MODEL.META_ARCHITECTURE == "Distiller":
        cfg.MODEL.META_ARCHITECTURE = "Segmentor"
    cfg.MODEL.BACKBONE.PRETRAINED = "none"
    model = build_model(cfg)
    path = weights or cfg.MODEL.WEIGHTS or f"{cfg.OUTPUT_DIR}/model_final.pth"
    load_teacher(model, path, allow_pickle=cfg.CHECKPOINT.ALLOW_PICKLE)
    return model.eval()
