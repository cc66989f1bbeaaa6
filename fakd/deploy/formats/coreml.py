"""CoreML, for Apple's devices."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fakd.deploy.metadata import ExportMetadata
from fakd.deploy.network import DeployedNetwork, program_of

from .base import OPSET, Files, Format, Run


class CoreMl(Format):
    """An ML program for iOS 16 and macOS 13 on; it can be written anywhere, but run on macOS alone."""

    name, ending, extra, runtime = "coreml", ".mlpackage", "coreml", "coreml"
    modules = ("coremltools",)
    limits = "images of one size; a folder; compared with PyTorch on macOS alone"
    any_size = False
    runs_here = sys.platform == "darwin"

    def write(
        self, network: DeployedNetwork, metadata: ExportMetadata, opset: int = OPSET, batch: int = 1
    ) -> Files:
        """See :meth:`Format.write`."""
        import coremltools

        program = program_of(network, metadata.size, batch, len(metadata.pixel_mean)).run_decompositions({})
        try:
            made = coremltools.convert(
                program,
                outputs=[coremltools.TensorType("scores")],
                compute_precision=coremltools.precision.FLOAT32,
                minimum_deployment_target=coremltools.target.iOS16,
                skip_model_load=True,
            )
        except Exception as error:  # its passes raise many kinds of errors
            raise ValueError(f"CoreML cannot express this network: {error}") from error
        made.user_defined_metadata.update(metadata.as_json())
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder, f"x{self.ending}")
            made.save(str(written))
            return {
                self.ending + str(file).removeprefix(str(written)): file.read_bytes()
                for file in sorted(written.rglob("*"))
                if file.is_file()
            }

    def open(self, path: Path, device: str = "cpu", threads: int = 0) -> tuple[Run, Mapping[str, str]]:
        """See :meth:`Format.open`.

        Raises:
            ValueError: this is no macOS, or CoreML cannot open the file.
        """
        if not self.runs_here:
            raise ValueError(f"'{path}' is of CoreML, which runs on macOS alone.")
        import coremltools

        try:
            model = coremltools.models.MLModel(str(path))
        except Exception as error:  # a foreign file fails in too many ways to name
            raise ValueError(f"CoreML cannot open '{path}': {error}") from error

        def run(image: Tensor) -> Tensor:
            return torch.from_numpy(model.predict({"image": image.numpy(force=True)})["scores"])

        return run, dict(model.user_defined_metadata)
