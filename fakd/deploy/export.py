"""Exports a trained student to a file that runs without this project, checked before it is written."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fakd.files import atomic_write

from .exported import Run, open_session, session_run
from .metadata import ExportMetadata
from .network import DeployedNetwork, exportable

FORMATS = {"onnx": ".onnx", "torchscript": ".ts", "torch-export": ".pt2"}
OPSET = 18  # the oldest that torch.onnx writes, and so the one that most runtimes know
AGREEMENT = 0.999  # share of pixels that must have the same class
# Sides at which a graph for any size is traced, and tested: such graphs fail at odd sides.
_MADE_AT = (2, 137, 197)
_TRIED_AT = ((2, 96, 128), (1, 101, 75), (1, 64, 161))


@dataclass(frozen=True)
class Comparison:
    """An exported network beside the one it was made of, on the same images.

    Attributes:
        difference: largest between two scores.
        scores: largest absolute score.
        agreement: share of pixels whose largest score is the same class's.
    """

    difference: float
    scores: float
    agreement: float

    def __str__(self) -> str:
        return (
            f"scores differ from PyTorch's by at most {self.difference:.2g} (of {self.scores:.3g}), "
            f"{100 * self.agreement:.3f} % of pixels have the same class"
        )


@torch.no_grad()
def export(
    network: DeployedNetwork,
    reference: DeployedNetwork,
    metadata: ExportMetadata,
    path: str | Path,
    file_format: str = "onnx",
    opset: int = OPSET,
) -> Comparison:
    """Writes a network and its metadata, if what was written computes what the network does.

    Args:
        network: on the CPU.
        reference: the same in float32, which the file is compared with.
        metadata: its ``size`` fixes the input to one image of that size; None leaves size and number free.
        path: of the file.
        file_format: one of :data:`FORMATS`.
        opset: of ONNX.

    Raises:
        ValueError: the format is unknown, the network cannot be expressed in it (the message names the
            operator, or says that the size must be fixed), or the file computes something else.
    """
    if file_format not in FORMATS:
        raise ValueError(f"The format '{file_format}' is none of {', '.join(FORMATS)}.")
    tried_at = shapes(metadata.size)
    if file_format == "torchscript":
        content, run = _torchscript(network, metadata, tried_at[0])
    else:
        program = program_of(network, metadata.size)
        content, run = (
            _torch_export(program, metadata)
            if file_format == "torch-export"
            else _onnx(program, metadata, opset)
        )
    found = compare(reference, run, tried_at)
    # In half precision two close scores may swap; the effect is measured on the test images.
    if metadata.precision == "float32" and found.agreement < AGREEMENT:
        raise ValueError(
            f"The exported file would compute something else: {found}; {100 * AGREEMENT:.1f} % must. "
            f"Nothing was written.{'' if metadata.size else ' With a fixed --size it may be right.'}"
        )
    with atomic_write(path) as file:
        file.write(content)
    return found


def shapes(size: tuple[int, int] | None) -> tuple[tuple[int, int, int], ...]:
    """(N, H, W) of the images that an export is tried on."""
    return _TRIED_AT if size is None else ((1, *size),)


def compare(network: DeployedNetwork, exported: Run, shapes: Iterable[tuple[int, int, int]]) -> Comparison:
    """Both on smooth random images of the shapes (N, H, W)."""
    difference = scores = 0.0
    same = total = 0
    generator = torch.Generator().manual_seed(0)
    for n, height, width in shapes:
        coarse = torch.rand(n, 3, height // 8 + 2, width // 8 + 2, generator=generator)
        image = 255 * F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
        if not network.normalize:
            image = network.network.normalize(image)
        ours = network(image)
        try:
            theirs = exported(image)
        except Exception as error:  # onnxruntime's errors share no base but this
            raise ValueError(
                f"The exported graph fails at {height}x{width}: {str(error).strip().splitlines()[-1]} "
                "Export it for a fixed --size."
            ) from error
        difference = max(difference, (ours - theirs).abs().max().item())
        scores = max(scores, ours.abs().max().item())
        same += int((ours.argmax(1) == theirs.argmax(1)).sum())
        total += n * height * width
    return Comparison(difference, scores, same / total)


def _torchscript(
    network: DeployedNetwork, metadata: ExportMetadata, shape: tuple[int, int, int]
) -> tuple[bytes, Run]:
    n, height, width = shape
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Tracing warns of every shape it takes for a constant; the comparison shows whether it may.
        warnings.simplefilter("ignore")
        traced = torch.jit.freeze(
            torch.jit.trace(network, torch.rand(n, 3, height, width), check_trace=False)
        )
        torch.jit.save(traced, buffer, _extra_files=metadata.as_json())
        buffer.seek(0)
        return buffer.getvalue(), torch.jit.load(buffer)


def program_of(
    network: nn.Module, size: tuple[int, int] | None, batch: int = 1
) -> torch.export.ExportedProgram:
    """The network as PyTorch's own graph, for ``batch`` images of (H, W), or any number of any size.

    Raises:
        ValueError: PyTorch cannot follow the network, or not for any size.
    """
    shape, free = (batch, *(size or ())), None
    if size is None:
        shape = _MADE_AT
        # Not named: a name requires a proof for every size, which the rounding at each stride prevents.
        free = (dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC),)
    try:
        example = torch.rand(shape[0], 3, *shape[1:])
        program = torch.export.export(exportable(network), (example,), dynamic_shapes=free, strict=False)
    except Exception as error:  # PyTorch raises many kinds of errors for what it cannot trace
        first = str(error).strip().splitlines()[0]
        if size is None:
            raise ValueError(
                f"This network cannot be exported for any size ({first}). Fix it with --size H W."
            ) from error
        raise ValueError(
            f"torch.export cannot follow this network ({first}); --format torchscript does not need to."
        ) from error
    for node in program.graph.nodes:  # a file would tell the paths of this machine
        node.meta.pop("stack_trace", None)
    return program


def _torch_export(program: torch.export.ExportedProgram, metadata: ExportMetadata) -> tuple[bytes, Run]:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files=metadata.as_json())
    buffer.seek(0)
    return buffer.getvalue(), torch.export.load(buffer).module()


def _onnx(program: torch.export.ExportedProgram, metadata: ExportMetadata, opset: int) -> tuple[bytes, Run]:
    import onnx

    model = onnx_graph(program, opset)
    onnx.helper.set_model_props(model, metadata.as_json())
    content = model.SerializeToString()
    return content, session_run(open_session(content))


def onnx_graph(program: torch.export.ExportedProgram, opset: int) -> Any:
    """The program as an ``onnx.ModelProto``, from ``image`` to ``scores``.

    Raises:
        ValueError: an operator is not in the opset; the message names it and the opset that has it.
    """
    import onnx

    try:
        model = _written(program, opset)
    except torch.onnx.OnnxExporterError as error:
        newest = onnx.defs.onnx_opset_version()
        operator = _without_translation(error)
        if operator is None:
            raise
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
    for each in loggers:  # they report in detail what is one sentence here
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
