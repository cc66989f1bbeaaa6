"""``result.json``: what a finished run reached, and under which circumstances."""

import datetime
import math
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from tabulate import tabulate
from torch import nn

from . import provenance
from .hooks import unwrapped
from .trainer import Trainer

Metrics = Mapping[str, float]


def metrics_by_set(cfg: CfgNode, results: Mapping[str, Any]) -> dict[str, Metrics]:
    """The evaluator's metrics by test set; detectron2 leaves the name out when there is only one."""
    if len(cfg.DATASETS.TEST) == 1:
        results = {cfg.DATASETS.TEST[0]: results}
    return {name: metrics["sem_seg"] for name, metrics in results.items() if metrics}


def build_result(
    cfg: CfgNode,
    trainer: Trainer,
    by_set: Mapping[str, Metrics],
    method: str,
    config_file: str,
    packed: int = 1,
) -> dict[str, Any]:
    """The content of ``result.json``, plain values only."""
    network = unwrapped(trainer.model)
    best = trainer.best
    return build_network_result(cfg, getattr(network, "student", network), by_set, method, config_file) | {
        "train_dataset": ", ".join(cfg.DATASETS.TRAIN),
        "iterations": trainer.max_iter,
        "batch_size": cfg.SOLVER.IMS_PER_BATCH,
        "crop": list(cfg.INPUT.CROP.SIZE),
        "best": {"mIoU": best.best_metric, "iteration": best.best_iter} if best else None,
        "seconds_per_iteration": trainer.clock.seconds_per_iteration(),
        "wall_clock": trainer.clock.wall_clock(),
        "packed": packed,
        "peak_memory_mb": provenance.peak_memory_mb(cfg.MODEL.DEVICE),
        "weights": "model_final.pth",
    }


def build_network_result(
    cfg: CfgNode, network: nn.Module, by_set: Mapping[str, Metrics], method: str, config_file: str
) -> dict[str, Any]:
    """What ``result.json`` says of a network, however it was trained."""
    size = list(cfg.INPUT.CROP.SIZE)
    params, gflops = provenance.cost(network, (size[0], size[1]))
    nested = {name: _nest(metrics) for name, metrics in by_set.items()}
    return {
        "name": method,
        "method": method,
        "seed": cfg.SEED,
        "dataset": next(iter(cfg.DATASETS.TEST), None),
        "config_file": config_file,
        "output_dir": cfg.OUTPUT_DIR,
        "metrics": next(iter(nested.values()), {}),
        "metrics_by_dataset": nested,
        "params": params,
        "gflops": gflops,
        "flops_size": size,
        "commit": provenance.commit(),
        "machine": provenance.machine(cfg.MODEL.DEVICE),
        "versions": provenance.versions(),
        "weights": cfg.MODEL.WEIGHTS,
        "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def flat_metrics(by_set: Mapping[str, Metrics]) -> dict[str, float]:
    """In one level: the first set's metrics under their names, those of further sets as <set>/<metric>."""
    flat: dict[str, float] = {}
    for i, (name, metrics) in enumerate(by_set.items()):
        flat |= {f"{name}/{key}" if i else key: value for key, value in metrics.items()}
    return flat


def _nest(metrics: Metrics) -> dict[str, Any]:
    nested: dict[str, Any] = {"IoU": {}, "Acc": {}}
    for key, value in metrics.items():
        kind, _, label = key.partition("-")
        number = None if math.isnan(value) else value  # JSON has no NaN
        if label:
            nested[kind][label] = number
        else:
            nested[kind] = number
    return nested


def class_table(by_set: Mapping[str, Metrics]) -> str:
    """IoU and accuracy per class and their means, in percent, a table per test set."""
    tables = []
    for name, metrics in by_set.items():
        labels = [key.removeprefix("IoU-") for key in metrics if key.startswith("IoU-")]
        rows = [[label, metrics[f"IoU-{label}"], metrics[f"Acc-{label}"]] for label in labels]
        rows.append(["mean", metrics["mIoU"], metrics["mAcc"]])
        tables.append(tabulate(rows, [name, "IoU", "Acc"], "simple", floatfmt=".2f"))
        tables.append(f"aAcc {metrics['aAcc']:.2f}")
    return "\n".join(tables)


def unnested(result: Mapping[str, Any]) -> dict[str, Metrics]:
    """What :func:`build_result` was given as ``by_set``, from ``result.json``."""
    by_set: dict[str, Metrics] = {}
    for name, nested in result["metrics_by_dataset"].items():
        flat: dict[str, float | None] = {}
        for key, value in nested.items():
            flat |= {f"{key}-{c}": v for c, v in value.items()} if isinstance(value, dict) else {key: value}
        by_set[name] = {key: math.nan if value is None else value for key, value in flat.items()}
    return by_set
