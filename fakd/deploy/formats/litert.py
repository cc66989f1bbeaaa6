"""LiteRT, formerly TensorFlow Lite, for Android and small boards."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fakd.deploy.metadata import ExportMetadata
from fakd.deploy.network import DeployedNetwork, exportable

from .base import OPSET, Files, Format, Run, metadata_behind, with_metadata


class LiteRt(Format):
    """Opened by ``ai_edge_litert.interpreter.Interpreter``."""

    name, ending, extra, runtime = "litert", ".tflite", "litert", "litert"
    modules = ("litert_torch", "ai_edge_litert")
    limits = "images of one size; its converter asks for an older PyTorch"
    any_size = False
    precisions = ("float32", "int8")

    def write(
        self, network: DeployedNetwork, metadata: ExportMetadata, opset: int = OPSET, batch: int = 1
    ) -> Files:
        """See :meth:`Format.write`."""
        import litert_torch

        assert metadata.size is not None  # check() lets no other through
        try:
            made = litert_torch.convert(
                exportable(network, signed=True),
                (torch.rand(batch, len(metadata.pixel_mean), *metadata.size),),
                quant_config=_static() if metadata.precision == "int8" else None,
            )
        except Exception as error:  # its passes raise many kinds of errors
            raise ValueError(f"LiteRT cannot express this network: {error}") from error
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder, "x.tflite")
            made.export(str(written))
            return {self.ending: with_metadata(written.read_bytes(), metadata)}

    def open(self, path: Path, device: str = "cpu", threads: int = 0) -> tuple[Run, Mapping[str, str]]:
        """See :meth:`Format.open`; on the CPU."""
        from ai_edge_litert.interpreter import Interpreter

        try:
            interpreter = Interpreter(str(path), num_threads=threads or None)
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"LiteRT cannot open '{path}': {error}") from error
        taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

        def run(image: Tensor) -> Tensor:
            interpreter.set_tensor(taken["index"], image.numpy(force=True))
            interpreter.invoke()
            return torch.from_numpy(interpreter.get_tensor(given["index"]))

        return run, metadata_behind(path)


def _static() -> Any:
    """What lets the converter write integers where the program rounds; its quantizer itself is not asked."""
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig

    return QuantConfig(PT2EQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True)))
