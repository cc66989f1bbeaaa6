"""torch.export: PyTorch's own graph, for what PyTorch compiles or lowers further."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import torch

from fakd.deploy.metadata import ExportMetadata
from fakd.deploy.network import DeployedNetwork, program_of

from .base import OPSET, Files, Format, Run, open_graph


class TorchExport(Format):
    """Opened by ``torch.export.load``."""

    name, ending, runtime = "torch-export", ".pt2", "torch.export"
    limits = "needs --allow-pickle where it is opened: its reader runs whatever code it holds"
    precisions = ("float32", "float16")
    opening_runs_code = True

    def write(
        self, network: DeployedNetwork, metadata: ExportMetadata, opset: int = OPSET, batch: int = 1
    ) -> Files:
        """See :meth:`Format.write`."""
        buffer = io.BytesIO()
        program = program_of(network, metadata.size, batch, len(metadata.pixel_mean))
        torch.export.save(program, buffer, extra_files=metadata.as_json())
        return {self.ending: buffer.getvalue()}

    def open(self, path: Path, device: str = "cpu", threads: int = 0) -> tuple[Run, Mapping[str, str]]:
        """See :meth:`Format.open`; on the CPU."""
        return open_graph(lambda found: torch.export.load(path, extra_files=found).module(), path, threads)
