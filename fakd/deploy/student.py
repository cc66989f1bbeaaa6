"""Exports a student to a checked file, and measures the change of its mIoU."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from detectron2.config import CfgNode
from torch import nn

from fakd.engine.evaluate import measure

from .export import Comparison, format_named, keep
from .exported import FixedSize, load_exported
from .formats import OPSET
from .metadata import PRECISIONS, build_metadata
from .network import DeployedNetwork
from .quantize import quantize
from .source import load_student

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        path: the file.
        size: in bytes, with what lies beside it.
        comparison: its scores beside PyTorch's in float32, on random images; None if this machine cannot
            run the format.
        miou: per test set, mIoU in percent of PyTorch in float32 and of the file; empty if not measured.
    """

    path: Path
    size: int
    comparison: Comparison | None
    miou: Mapping[str, tuple[float, float]]


def export_student(
    cfg: CfgNode,
    weights: str,
    path: str | Path,
    *,
    file_format: str = "onnx",
    size: tuple[int, int] | None = None,
    normalize: bool = True,
    precision: str = "",
    opset: int = OPSET,
    calibration: int = 64,
    evaluate: bool = False,
    reached: Mapping[str, float] | None = None,
) -> Export:
    """Writes a trained student as one file that needs nothing of this project.

    Args:
        cfg: of the student, or of its distillation.
        weights: its checkpoint.
        path: the file to write.
        file_format: see :data:`fakd.deploy.formats.FORMATS`.
        size: (H, W) of the input, one image at a time; None leaves batch and size free.
        normalize: put the normalisation into the file, which then takes images of 0 to 255.
        precision: of :data:`fakd.deploy.metadata.PRECISIONS`; "" is that of the training. All but float32 are
            measured on the test sets.
        opset: of ONNX.
        calibration: number of training images that int8 is calibrated on.
        evaluate: measure float32 on the test sets too.
        reached: what PyTorch does there with images of this size, if that is known.

    Raises:
        FileNotFoundError: there are no weights.
        ValueError: the weights are not of this config, the format is unknown or a package of it missing, the
            network cannot be expressed in it (the message names the operator, or says that the size must be
            fixed), or see :func:`fakd.deploy.export.keep`.
    """
    trained = "int8" if cfg.DEPLOY.QAT.ENABLED else "float32"
    precision = precision or trained
    if precision not in PRECISIONS:
        raise ValueError(f"The precision '{precision}' is none of {', '.join(PRECISIONS)}.")
    if trained == "int8" != precision:
        raise ValueError(
            f"This network was trained for int8 (DEPLOY.QAT), so it is not written in {precision}."
        )
    made = format_named(file_format)
    made.check(size, precision)
    made.stem(path)  # an ending that does not fit is told before hours of work
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"  # a graph made on another device may ask for it
    cfg.TEST.SAVE = ()
    network = load_student(cfg, weights)
    exact = DeployedNetwork(network, normalize)
    metadata = build_metadata(cfg, network, size, normalize, precision)
    written = exact
    if precision == "float16":
        written = DeployedNetwork(network, normalize, half=True)
    elif precision == "int8" != trained:
        rounded = copy.deepcopy(network)
        quantize(cfg, rounded, calibration, size)
        written = DeployedNetwork(rounded, normalize)
    if precision == "int8" and cfg.DEPLOY.QAT.WEIGHT_BITS == 8 and made.runs_here and _lacks_vnni():
        logger.warning(
            "This processor adds products of int8 in 16 bits, which overflow in onnxruntime and OpenVINO: "
            "the file may be far worse here than on one with VNNI. DEPLOY.QAT.WEIGHT_BITS 7 fits both."
        )
    files = made.write(written, metadata, opset)
    found = keep(made, files, exact, metadata, path)
    miou = {}
    if made.runs_here and (evaluate or precision != "float32"):
        before = reached or measure_miou(cfg, FixedSize(network, size) if size else network)
        after = measure_miou(cfg, load_exported(path, allow_pickle=True))  # just written here
        miou = {name: (before[name], after[name]) for name in before}
    return Export(Path(path), sum(map(len, files.values())), found, miou)


def _lacks_vnni() -> bool:
    """Whether this is an x86 processor without instructions that add products of bytes in 32 bits."""
    known = torch.cpu.get_capabilities()
    has = any(known.get(name) for name in ("avx_vnni", "avx512_vnni", "amx_int8"))
    return known.get("architecture") == "x86_64" and not has


def measure_miou(cfg: CfgNode, network: nn.Module) -> dict[str, float]:
    """mIoU in percent of a network under detectron2's contract, by test set."""
    if not cfg.DATASETS.TEST:
        return {}
    return {name: metrics["mIoU"] for name, metrics in measure(cfg, network).by_set.items()}
