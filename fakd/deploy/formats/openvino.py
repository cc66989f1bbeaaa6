"""OpenVINO's intermediate representation, for Intel's processors."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fakd.deploy.metadata import ExportMetadata

from .base import Files, Run
from .onnx import OfGraph

_IN_RT_INFO = "fakd"


class OpenVino(OfGraph):
    """Opened by ``openvino.Core().read_model``.

    It is made of the ONNX graph: OpenVINO's own reader of torch.export lacks an operator of ISANet, and drops
    the names and the fixed size of the input.
    """

    name, ending, extra, runtime = "openvino", ".xml", "openvino", "openvino"
    modules = ("onnx", "onnxscript", "openvino")
    limits = "two files, the weights in a .bin beside the .xml"

    def of_graph(self, model: Any, metadata: ExportMetadata) -> Files:
        """The graph with the metadata in its ``rt_info``.

        Raises:
            ValueError: OpenVINO lacks an operator; its message names it.
        """
        import openvino

        try:
            read = openvino.Core().read_model(model.SerializeToString(), b"")
        except RuntimeError as error:
            raise ValueError(f"OpenVINO cannot read the network: {error}") from error
        for key, text in metadata.as_json().items():
            read.set_rt_info(text, [_IN_RT_INFO, key])
        with tempfile.TemporaryDirectory() as folder:
            openvino.save_model(read, Path(folder, "x.xml"), compress_to_fp16=False)
            return {ending: Path(folder, f"x{ending}").read_bytes() for ending in (self.ending, ".bin")}

    def open(self, path: Path, device: str = "cpu", threads: int = 0) -> tuple[Run, Mapping[str, str]]:
        """See :meth:`Format.open`; on the CPU, in float32 even where it has bfloat16."""
        import openvino

        core = openvino.Core()
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        try:
            model = core.read_model(path)
            compiled = core.compile_model(model, "CPU", options)
        except RuntimeError as error:
            raise ValueError(f"OpenVINO cannot open '{path}': {error}") from error
        found = {
            key: model.get_rt_info([_IN_RT_INFO, key]).astype(str)
            for key in ExportMetadata.model_fields
            if model.has_rt_info([_IN_RT_INFO, key])
        }

        def run(image: Tensor) -> Tensor:
            return torch.from_numpy(compiled(np.ascontiguousarray(image.numpy(force=True)))[0])

        return run, found
