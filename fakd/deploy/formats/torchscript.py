"""TorchScript: a traced program, for PyTorch's C++ library."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch

from fakd.deploy.metadata import ExportMetadata
from fakd.deploy.network import DeployedNetwork, traced

from .base import OPSET, Files, Format, Run, open_graph


class TorchScript(Format):
    """Opened by ``torch.jit.load``, in Python and in C++."""

    name, ending, runtime = "torchscript", ".ts", "torchscript"
    limits = "a program, to be opened only if you trust its author"
    precisions = ("float32", "float16")

    def write(
        self, network: DeployedNetwork, metadata: ExportMetadata, opset: int = OPSET, batch: int = 1
    ) -> Files:
        """See :meth:`Format.write`."""
        example = torch.rand(batch, len(metadata.pixel_mean), *(metadata.size or (96, 128)))
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            # Tracing warns of every shape it takes for a constant; the comparison shows whether it may.
            warnings.simplefilter("ignore")
            frozen = torch.jit.freeze(traced(network, example))
            torch.jit.save(frozen, buffer, _extra_files=metadata.as_json())
        return {self.ending: buffer.getvalue()}

    def open(self, path: Path, device: str = "cpu", threads: int = 0) -> tuple[Run, Mapping[str, str]]:
        """See :meth:`Format.open`; on the CPU."""
        return open_graph(lambda found: torch.jit.load(path, "cpu", _extra_files=found), path, threads)
