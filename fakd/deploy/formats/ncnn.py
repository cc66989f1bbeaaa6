"""ncnn, for phones and small ARM boards."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fakd.deploy.metadata import ExportMetadata
from fakd.deploy.network import DeployedNetwork, exportable, traced

from .base import OPSET, Files, Format, Run, parsed


class Ncnn(Format):
    """Opened by ``ncnn.Net``, input ``in0`` and output ``out0``; pnnx writes it."""

    name, ending, extra, runtime = "ncnn", ".ncnn.param", "ncnn", "ncnn"
    modules = ("pnnx", "ncnn")
    limits = "one image of one size; three files, .bin the weights and .json the metadata; no ISANet"
    any_size = False

    def write(
        self, network: DeployedNetwork, metadata: ExportMetadata, opset: int = OPSET, batch: int = 1
    ) -> Files:
        """See :meth:`Format.write`."""
        import pnnx

        assert metadata.size is not None  # check() lets no other through
        if batch != 1:
            raise ValueError("ncnn takes one image at a time.")
        shape = (1, len(metadata.pixel_mean), *metadata.size)
        with tempfile.TemporaryDirectory() as folder:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # tracing warns of every shape it takes for a constant
                traced(exportable(network), torch.rand(shape)).save(str(Path(folder, "x.pt")))
            sizes = f"inputshape=[{','.join(map(str, shape))}]"
            done = subprocess.run(
                [pnnx.EXEC_PATH, "x.pt", sizes, "fp16=0"], cwd=folder, capture_output=True, text=True
            )
            said = done.stdout + done.stderr
            # pnnx goes on without what ncnn lacks, "ignore Tensor.reshape Tensor.reshape_24 param ...", and
            # ncnn crashes on what it writes then.
            if lacking := sorted(set(re.findall(r"^ignore (\S+) \S+ param", said, re.MULTILINE))):
                raise ValueError(f"ncnn lacks, in the form needed here, {', '.join(lacking)}.")
            if done.returncode:
                reason = (said.strip() or f"exit code {done.returncode}").splitlines()[-1]
                raise ValueError(f"pnnx cannot convert this network: {reason}")
            return {
                self.ending: Path(folder, "x.ncnn.param").read_bytes(),
                ".ncnn.bin": Path(folder, "x.ncnn.bin").read_bytes(),
                ".ncnn.json": json.dumps(metadata.as_json()).encode(),
            }

    def open(self, path: Path, device: str = "cpu", threads: int = 0) -> tuple[Run, Mapping[str, str]]:
        """See :meth:`Format.open`; on the CPU, in float32."""
        import ncnn

        net = ncnn.Net()
        for name in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(net.opt, f"use_{name}", False)
        if threads:
            net.opt.num_threads = threads
        stem = self.stem(path)
        if net.load_param(str(path)) or net.load_model(f"{stem}.ncnn.bin"):
            raise ValueError(f"ncnn cannot open '{path}' with the weights beside it, '{stem}.ncnn.bin'.")

        def run(image: Tensor) -> Tensor:
            scores = []
            for each in image.numpy(force=True):
                extractor = net.create_extractor()
                extractor.input("in0", ncnn.Mat(np.ascontiguousarray(each)).clone())
                failed, found = extractor.extract("out0")
                if failed:
                    raise ValueError(f"ncnn cannot compute '{path}' (code {failed}).")
                scores.append(np.array(found))
            return torch.from_numpy(np.stack(scores))

        beside = Path(f"{stem}.ncnn.json")
        return run, parsed(beside.read_bytes(), beside) if beside.is_file() else {}
