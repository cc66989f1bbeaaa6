"""Exports a student to a checked file, and measures the change of its mIoU."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode
from torch import nn

from fakd.engine.evaluate import measure

from .export import OPSET, Comparison, compare, export, shapes
from .exported import FixedSize, load_exported, open_session, session_run
from .metadata import build_metadata
from .network import DeployedNetwork
from .quantize import quantize
from .source import load_student

PRECISIONS = ("float32", "float16", "int8")


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        path: the file.
        comparison: its scores beside PyTorch's in float32, on random images.
        miou: per test set, mIoU in percent of PyTorch in float32 and of the file; empty if not measured.
    """

    path: Path
    comparison: Comparison
    miou: Mapping[str, tuple[float, float]]


def export_student(
    cfg: CfgNode,
    weights: str,
    path: str | Path,
    *,
    file_format: str = "onnx",
    size: tuple[int, int] | None = None,
    normalize: bool = True,
    precision: str = "float32",
    opset: int = OPSET,
    calibration: int = 64,
    evaluate: bool = False,
) -> Export:
    """Writes a trained student as one file that needs nothing of this project.

    Args:
        cfg: of the student, or of its distillation.
        weights: its checkpoint.
        path: the file to write.
        file_format: see :data:`fakd.deploy.export.FORMATS`.
        size: (H, W) of the input, one image at a time; None leaves batch and size free.
        normalize: put the normalisation into the file, which then takes images of 0 to 255.
        precision: of :data:`PRECISIONS`. All but float32 are measured on the test sets.
        opset: of ONNX.
        calibration: number of training images that int8 is calibrated on.
        evaluate: measure float32 on the test sets too.

    Raises:
        FileNotFoundError: there are no weights.
        ValueError: the weights are not of this config, or see :func:`fakd.deploy.export.export`.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"The precision '{precision}' is none of {', '.join(PRECISIONS)}.")
    if precision == "int8" and file_format != "onnx":
        raise ValueError("int8 is made for ONNX alone: --format onnx.")
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"  # a graph made on another device may ask for it
    cfg.TEST.SAVE = ()
    network = load_student(cfg, weights)
    exact = DeployedNetwork(network, normalize)
    metadata = build_metadata(cfg, network, size, normalize, precision)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if precision == "int8":
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "float32.onnx")
            export(exact, exact, metadata.model_copy(update={"precision": "float32"}), source, opset=opset)
            quantize(cfg, source, path, metadata, calibration)
        found = compare(exact, session_run(open_session(str(path))), shapes(metadata.size))
    else:
        half = DeployedNetwork(network, normalize, half=True) if precision == "float16" else exact
        found = export(half, exact, metadata, path, file_format, opset)
    miou = {}
    if evaluate or precision != "float32":
        before = measure_miou(cfg, FixedSize(network, size) if size else network)
        after = measure_miou(cfg, load_exported(path, allow_pickle=True))  # just written here
        miou = {name: (before[name], after[name]) for name in before}
    return Export(path, found, miou)


def measure_miou(cfg: CfgNode, network: nn.Module) -> dict[str, float]:
    """mIoU in percent of a network under detectron2's contract, by test set."""
    if not cfg.DATASETS.TEST:
        return {}
    return {name: metrics["mIoU"] for name, metrics in measure(cfg, network).by_set.items()}
