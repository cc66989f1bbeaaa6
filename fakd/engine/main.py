"""One run: from a config to metrics."""

import logging
import math
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from torch import nn
from tqdm import tqdm

from fakd.data.datasets.custom import register_custom

from .check import check_config
from .device import on_device
from .logs import run_logging
from .result import finish_run
from .run_folder import RunFolder
from .signals import stop_on_signals
from .trainer import build_trainer

logger = logging.getLogger(__name__)


def run(
    cfg: CfgNode,
    resume: bool = False,
    *,
    method: str = "",
    config_file: str = "",
    bar: tqdm | None = None,
    quiet: bool = False,
    extra_hooks: Sequence[HookBase] = (),
    max_seconds: float = math.inf,
    model: nn.Module | None = None,
) -> dict[str, float]:
    """Trains and evaluates, or continues to; called by every rank.

    Args:
        cfg: from :func:`fakd.config.load_config`.
        resume: continue the run in OUTPUT_DIR. A finished one is left as it is.
        method: column of a report; default the recipe, or "student".
        config_file: noted in the result.
        bar: progress bar to move along, MAX_ITER in all.
        quiet: keep the console for the bar.
        extra_hooks: called after evaluation and saving, on the first rank.
        max_seconds: end, as if MAX_ITER were reached, once training took so long.
        model: in place of the one that the config describes, whose folder cannot build it again.

    Returns:
        mIoU, mAcc, aAcc and per class IoU-<class> and Acc-<class> in percent on the first test set, those of
        further sets as <set>/<metric>; empty on ranks other than the first.

    Raises:
        ValueError, OSError, KeyError: the config, the folder or the data is not usable; see the message.
        FloatingPointError: a loss or weight is not finite.
        SystemExit: SIGTERM or SIGINT came; everything is saved.
    """
    register_custom(cfg.DATASETS.CUSTOM)  # the config may come from another process
    check_config(cfg)
    folder = RunFolder(cfg.OUTPUT_DIR)
    with (
        stop_on_signals(),
        folder.claimed(cfg, resume),
        run_logging(cfg.OUTPUT_DIR, quiet, bar),
        on_device(cfg.MODEL.DEVICE),
    ):
        if (metrics := folder.metrics()) is not None:
            logger.info(f"The run in '{folder.path}' is finished; nothing to do.")
            return metrics.flat()
        trainer = build_trainer(cfg, resume, bar, extra_hooks, max_seconds, model)
        trainer.train()
        return finish_run(trainer, folder, method, config_file)
