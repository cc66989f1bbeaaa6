"""One student in every format: what each file weighs, how fast it is and what it reaches."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from detectron2.config import CfgNode
from torch import Tensor

from fakd.config import load_config
from fakd.engine import provenance
from fakd.files import atomic_write

from .exported import FixedSize
from .formats import FORMATS, Format, Run
from .network import DeployedNetwork
from .source import load_student
from .student import export_student, measure_miou


@torch.inference_mode()
def cost_ratio(reference: Run, run: Run, image: Tensor, repeats: int) -> float:
    """Median processor time of ``run`` over that of ``reference``.

    It is that of all threads, without what other processes take meanwhile: a busy machine interrupts the
    slower of two networks more often, and a ratio of latencies would show that. On one thread both are equal.

    Args:
        reference: and ``run``: from images to scores.
        image: (1, C, H, W).
        repeats: timed calls of each.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for call in range(repeats + 3):  # the first three allocate memory and choose kernels
        for each, spent in zip((reference, run), times, strict=True):
            start = time.process_time()
            each(image)
            if call >= 3:
                spent.append(time.process_time() - start)
    return statistics.median(times[1]) / statistics.median(times[0])


def peak_memory(
    make: Callable[..., Run], arguments: tuple[Any, ...], shape: tuple[int, ...], threads: int
) -> float | None:
    """MB that a network takes to be opened and to compute three images, in a process of its own.

    Args:
        make: of the top level of a module; opens the network.
        arguments: of ``make``.
        shape: (1, C, H, W) of the images.
        threads: of the CPU.

    Returns:
        None where the system does not tell.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure_memory, make, arguments, shape, threads).result()


def _measure_memory(
    make: Callable[..., Run], arguments: tuple[Any, ...], shape: tuple[int, ...], threads: int
) -> float | None:
    torch.set_num_threads(threads)
    before = provenance.peak_memory_mb("cpu")
    run = make(*arguments)
    with torch.inference_mode():
        for _ in range(3):
            run(torch.rand(shape))
    after = provenance.peak_memory_mb("cpu")
    return None if before is None or after is None else after - before


def _open(name: str, path: str, threads: int) -> Run:
    return FORMATS[name].open(Path(path), threads=threads)[0]


def _in_pytorch(cfg: CfgNode, weights: str) -> Run:
    if cfg.PLUGINS:  # which may hold the network; a process of its own has not imported them
        load_config(opts=["PLUGINS", str(list(cfg.PLUGINS))])
    return DeployedNetwork(load_student(cfg, weights))


def export_all(
    cfg: CfgNode,
    weights: str,
    stem: str | Path,
    size: tuple[int, int],
    *,
    repeats: int = 50,
    threads: int = 1,
    table: str | Path | None = None,
    tell: Callable[[str], None] = print,
    **options: Any,
) -> pd.DataFrame:
    """Writes a student in every format and precision that it and this machine have, for images of one size.

    Args:
        cfg: of the student.
        weights: its checkpoint.
        stem: path of the files, to which each format adds its ending.
        size: (H, W) of the input.
        repeats: timed calls.
        threads: of the CPU.
        table: csv file to which each row is written as soon as it is measured.
        tell: takes a line on each file as it is made.
        **options: of :func:`fakd.deploy.student.export_student`.

    Returns:
        A row per file, PyTorch's first: its size, the processor time of an image over PyTorch's, the peak
        memory of a process that opens it and runs it, and mIoU. A format that cannot be written has the
        reason in its row.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE, cfg.TEST.SAVE = "cpu", ()
    torch.set_num_threads(threads)
    network = load_student(cfg, weights)
    reference = DeployedNetwork(network, options.get("normalize", True))
    shape = (1, len(network.pixel_mean), *size)
    image = 255 * torch.rand(shape, generator=torch.Generator().manual_seed(0))
    number = sum(p.numel() for p in reference.parameters())
    trained = cfg.DEPLOY.QAT.ENABLED
    own = "int8's rounding" if trained else "float32"
    first = {"format": "PyTorch", "precision": own, "MB": 4 * number / 1e6, "time / PyTorch": 1.0}
    first |= {"memory (MB)": peak_memory(_in_pytorch, (cfg, weights), shape, threads)}
    reached = measure_miou(cfg, FixedSize(network, size))
    rows: list[dict[str, Any]] = [first | _named(reached)]
    for made in FORMATS.values():
        for precision in ("int8",) if trained else made.precisions:
            row: dict[str, Any] = {"format": made.name, "precision": precision}
            path = f"{stem}{'' if precision == 'float32' else f'_{precision}'}{made.ending}"
            given = options | {"file_format": made.name, "size": size, "precision": precision}
            try:
                done = export_student(cfg, weights, path, evaluate=True, reached=reached, **given)
            except ValueError as error:
                row["remark"] = str(error)
            else:
                row |= {"MB": done.size / 1e6} | _named(
                    {name: after for name, (_, after) in done.miou.items()}
                )
                row |= _timed(made, path, reference, image, repeats, threads)
                if made.runs_here:
                    row |= {"memory (MB)": peak_memory(_open, (made.name, path, threads), shape, threads)}
            rows.append(row)
            if table:
                with atomic_write(table, "w") as file:
                    pd.DataFrame(rows).to_csv(file, index=False, float_format="%.3f")
            tell(
                "; ".join(
                    f"{key} {value:.4g}" if isinstance(value, float) else value for key, value in row.items()
                )
            )
    return pd.DataFrame(rows)


def _named(miou: dict[str, float]) -> dict[str, float]:
    return {f"mIoU on {name}": value for name, value in miou.items()}


def _timed(
    made: Format, path: str, reference: Run, image: Tensor, repeats: int, threads: int
) -> dict[str, Any]:
    if not made.runs_here:
        return {"remark": f"not run: {made.limits}"}
    run, _ = made.open(Path(path), threads=threads)
    return {"time / PyTorch": cost_ratio(reference, run, image, repeats)}
