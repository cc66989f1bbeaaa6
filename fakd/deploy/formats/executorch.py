"""ExecuTorch, PyTorch's own runtime for phones and micro-controllers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fakd.deploy.metadata import ExportMetadata
from fakd.deploy.network import DeployedNetwork, program_of

from .base import OPSET, Files, Format, Run, metadata_behind, with_metadata


class ExecuTorch(Format):
    """Opened by ``executorch.runtime.Runtime`` and by its C++ and Java libraries, lowered to XNNPACK."""

    name, ending, extra, runtime = "executorch", ".pte", "executorch", "executorch"
    modules = ("executorch",)
    limits = "images of one size"
    any_size = False

    def write(
        self, network: DeployedNetwork, metadata: ExportMetadata, opset: int = OPSET, batch: int = 1
    ) -> Files:
        """See :meth:`Format.write`."""
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        # It reads weights as lying row by row, which they do not where MODEL.CHANNELS_LAST is set.
        plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        program = program_of(plain, metadata.size, batch, len(metadata.pixel_mean))
        try:
            lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
            content = lowered.to_executorch().buffer
        except Exception as error:  # its passes raise many kinds of errors
            raise ValueError(f"ExecuTorch cannot express this network: {error.__cause__ or error}") from error
        return {self.ending: with_metadata(content, metadata)}

    def open(self, path: Path, device: str = "cpu", threads: int = 0) -> tuple[Run, Mapping[str, str]]:
        """See :meth:`Format.open`; on the CPU, with as many threads as it takes."""
        from executorch.runtime import Runtime

        try:
            method = Runtime.get().load_program(path).load_method("forward")
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"ExecuTorch cannot open '{path}': {error}") from error
        if method is None:
            raise ValueError(f"ExecuTorch cannot open '{path}': it has no method 'forward'.")

        def run(image: Tensor) -> Tensor:
            with torch.no_grad():
                return method.execute([image.contiguous()])[0].clone()  # its memory is used again

        return run, metadata_behind(path)
