"""The formats that a student can be exported in; each is a class of a file of its own."""

from __future__ import annotations

from pathlib import Path

from .base import OPSET, Files, Format, Run
from .coreml import CoreMl
from .executorch import ExecuTorch
from .litert import LiteRt
from .ncnn import Ncnn
from .onnx import Onnx
from .openvino import OpenVino
from .torch_export import TorchExport
from .torchscript import TorchScript

_ALL = (Onnx, OpenVino, LiteRt, Ncnn, ExecuTorch, CoreMl, TorchScript, TorchExport)
FORMATS: dict[str, Format] = {each.name: each() for each in _ALL}


def format_of(path: str | Path) -> Format | None:
    """The format whose ending a file's name has."""
    return next((made for made in FORMATS.values() if str(path).endswith(made.ending)), None)


__all__ = ["FORMATS", "OPSET", "Files", "Format", "Run", "format_of"]
