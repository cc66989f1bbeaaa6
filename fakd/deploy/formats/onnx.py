"""ONNX, which most runtimes read; onnxruntime is the one it is checked with."""

from __future__ import annotations

import logging
import re
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fakd.deploy.metadata import ExportMetadata
from fakd.deploy.network import DeployedNetwork, lines_of, program_of

from .base import OPSET, Files, Format, Run


class OfGraph(Format):
    """A format that is made of an ONNX graph, and so has int8 wherever ONNX has."""

    precisions = ("float32", "float16", "int8")

    def write(
        self, network: DeployedNetwork, metadata: ExportMetadata, opset: int = OPSET, batch: int = 1
    ) -> Files:
        """See :meth:`Format.write`."""
        return self.of_graph(
            onnx_graph(program_of(network, metadata.size, batch, len(metadata.pixel_mean)), opset), metadata
        )

    @abstractmethod
    def of_graph(self, model: Any, metadata: ExportMetadata) -> Files:
        """The files of an ``onnx.ModelProto`` from ``image`` to ``scores``."""


class Onnx(OfGraph):
    """Opened by onnxruntime, and by much else."""

    name, ending, extra, runtime = "onnx", ".onnx", "export", "onnxruntime"
    modules = ("onnx", "onnxscript", "onnxruntime")

    def of_graph(self, model: Any, metadata: ExportMetadata) -> Files:
        """The graph with the metadata in its ``metadata_props``."""
        import onnx

        del model.metadata_props[:]
        onnx.helper.set_model_props(model, metadata.as_json())
        return {self.ending: model.SerializeToString()}

    def open(self, path: Path, device: str = "cpu", threads: int = 0) -> tuple[Run, Mapping[str, str]]:
        """See :meth:`Format.open`."""
        session = open_session(str(path), device, threads)
        return session_run(session), session.get_modelmeta().custom_metadata_map


def open_session(model: str | bytes, device: str = "cpu", threads: int = 0) -> Any:
    """An ``onnxruntime.InferenceSession``.

    Args:
        model: path, or the content of a file.
        device: "cuda" uses onnxruntime's CUDA provider where it has one.
        threads: at most; 0 leaves the choice to onnxruntime.

    Raises:
        ValueError: onnxruntime is not installed, or cannot open the model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError("onnxruntime is not installed: pip install 'fakd[export]'.") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors come as exceptions
    options.intra_op_num_threads = threads
    wanted = ["CUDAExecutionProvider"] if device != "cpu" else []
    providers = [p for p in wanted if p in onnxruntime.get_available_providers()] + ["CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(model, options, providers=providers)
    except Exception as error:  # onnxruntime's errors share no base but this
        name = f"'{model}'" if isinstance(model, str) else "the exported graph"
        raise ValueError(f"onnxruntime cannot open {name}: {error}") from error


def session_run(session: Any) -> Run:
    """What a session computes, on tensors."""

    def run(image: Tensor) -> Tensor:
        return torch.from_numpy(
            session.run(None, {"image": np.ascontiguousarray(image.numpy(force=True))})[0]
        )

    return run


def onnx_graph(program: torch.export.ExportedProgram, opset: int) -> Any:
    """The program as an ``onnx.ModelProto``, from ``image`` to ``scores``.

    Raises:
        ValueError: an operator is not in the opset, and the message names it and the opset that has it; or
            PyTorch's exporter fails.
    """
    import onnx

    try:
        model = _written(program, opset)
    except torch.onnx.OnnxExporterError as error:
        newest = onnx.defs.onnx_opset_version()
        operator = _without_translation(error)
        if operator is None:
            reason = lines_of(error.__cause__ or error)[0]
            raise ValueError(
                f"torch.onnx cannot write this network ({reason}); --format torch-export does not need it."
            ) from error
        try:
            _written(program, newest)
        except torch.onnx.OnnxExporterError:
            remedy = "and no later one has. Use another layer in its place, or --format torch-export"
        else:
            remedy = f"but opset {newest} has: --opset {newest}"
        raise ValueError(
            f"ONNX's opset {opset} has nothing for the operator {operator}, {remedy}."
        ) from error
    got = {entry.domain: entry.version for entry in model.opset_import}[""]
    if got != opset:
        since = {n.op_type: onnx.defs.get_schema(n.op_type, got).since_version for n in model.graph.node}
        newer = [f"{name} (opset {version})" for name, version in sorted(since.items()) if version > opset]
        raise ValueError(
            f"This network cannot be written in ONNX's opset {opset}, which lacks, in the form needed here, "
            f"{', '.join(newer) or 'what torch.onnx writes'}. Use --opset {got}."
        )
    return model


def _written(program: torch.export.ExportedProgram, opset: int) -> Any:
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    for each in loggers:  # they report at length what is said in one sentence here
        each.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset,
                input_names=["image"],
                output_names=["scores"],
                verbose=False,
            )
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
    assert made is not None  # torch.onnx.export gives None for a file only
    model = made.model_proto
    graph = model.graph
    for node in graph.node:  # where each came from, with the paths of this machine
        del node.metadata_props[:]
    sides = [side.dim_param for side in graph.input[0].type.tensor_type.shape.dim]
    names = dict(zip(sides, ("batch", "", "height", "width"), strict=True))
    for value in (*graph.input, *graph.output, *graph.value_info):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param:
                side.dim_param = re.sub(r"\w+", lambda found: names.get(found[0], found[0]), side.dim_param)
    return model


def _without_translation(error: BaseException | None) -> str | None:
    """The PyTorch operator that the exporter knows no ONNX form of, from the chain of its errors."""
    while error is not None:
        if found := re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", str(error)):
            return found[1]
        error = error.__cause__
    return None
