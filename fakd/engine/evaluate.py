"""Evaluation of trained networks, without their training."""

import logging

from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils import comm
from torch import nn

from fakd.checkpoint import load_teacher
from fakd.data.datasets.custom import register_custom
from fakd.modeling.quantized import begin, check_ranges

from .check import check_place
from .device import on_device
from .logs import run_logging
from .metrics import Metrics
from .quantization import prepare_for_int8
from .result import build_result
from .run_folder import RunFolder
from .signals import stop_on_signals
from .trainer import Trainer

logger = logging.getLogger(__name__)


def evaluate(cfg: CfgNode, *, quiet: bool = False) -> dict[str, float]:
    """Evaluates MODEL.WEIGHTS, or else the final weights in OUTPUT_DIR; called by every rank.

    Args:
        cfg: from :func:`fakd.config.load_config`; may be that of a distillation.
        quiet: show only warnings on the console.

    Returns:
        See :func:`fakd.engine.run`.

    Raises:
        ValueError, OSError, KeyError: the config, the weights or the data is not usable; see the message.
        SystemExit: SIGTERM or SIGINT came.
    """
    register_custom(cfg.DATASETS.CUSTOM)  # the config may come from another process
    check_place(cfg)
    with stop_on_signals(), run_logging("", quiet), on_device(cfg.MODEL.DEVICE):
        metrics = measure(cfg, load_trained(cfg))
        logger.info("\n" + metrics.table())
    return metrics.flat()


def evaluate_weights(cfg: CfgNode, method: str, config_file: str) -> None:
    """Evaluates MODEL.WEIGHTS, trained elsewhere, and writes ``result.json``; called by every rank.

    Args:
        cfg: of the network.
        method: column of a report.
        config_file: noted in the result.

    Raises:
        ValueError, OSError, KeyError, SystemExit: see :func:`evaluate`.
    """
    check_place(cfg)
    folder = RunFolder(cfg.OUTPUT_DIR)
    with stop_on_signals(), run_logging(cfg.OUTPUT_DIR, quiet=True), on_device(cfg.MODEL.DEVICE):
        if comm.is_main_process():
            folder.write_config(cfg)
        network = load_trained(cfg)
        metrics = measure(cfg, network)
        if comm.is_main_process():  # the others have no metrics
            logger.info("\n" + metrics.table())
            folder.write_result(build_result(cfg, network, metrics, method, config_file))
        comm.synchronize()  # on return the result is there for every rank


def measure(cfg: CfgNode, network: nn.Module) -> Metrics:
    """What a network under detectron2's contract reaches on DATASETS.TEST, tested as TEST says."""
    return Metrics.of_evaluators(cfg.DATASETS.TEST, Trainer.test(cfg, network))


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
    prepare_for_int8(model, cfg)
    load_teacher(model, path, allow_pickle=cfg.CHECKPOINT.ALLOW_PICKLE)
    if cfg.DEPLOY.QAT.ENABLED:
        check_ranges(model, path)
        begin(model)
    return model.eval()
