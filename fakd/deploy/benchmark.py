"""Compares networks: size, time and memory of inference and of a training step."""

from __future__ import annotations

import math
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from detectron2.config import CfgNode
from torch import Tensor

from fakd.config import NO_RECIPE, load_config
from fakd.engine import provenance
from fakd.engine.model_summary import summarize
from fakd.engine.trainer import Trainer
from fakd.errors import message_of
from fakd.modeling.build import build_segmentor

from .export import write
from .formats import FORMATS, Format
from .metadata import build_metadata
from .network import DeployedNetwork

_BY_RUNTIME = {made.runtime: made for made in FORMATS.values() if made.runs_here}
RUNTIMES = ("eager", "compiled", *_BY_RUNTIME, "training")
_WARM = 3  # calls before the clock starts: memory is allocated, kernels are chosen


@dataclass(frozen=True)
class Job:
    """One measurement.

    Attributes:
        config_file: of the network, which keeps its random weights: they change no time.
        opts: ``(KEY, VALUE, ...)`` for it.
        runtime: of :data:`RUNTIMES`.
        batch: number of images.
        size: (H, W) of the images.
        repeats: timed calls.
        threads: of the CPU, 0 for the default.
        graph: of an exported format, the file of :func:`write_graph`.
    """

    config_file: str
    opts: tuple[str, ...]
    runtime: str
    batch: int
    size: tuple[int, int]
    repeats: int
    threads: int = 0
    graph: str = ""

    @property
    def format(self) -> Format | None:
        """The exported format that the runtime opens, if it does."""
        return _BY_RUNTIME.get(self.runtime)

    @property
    def what(self) -> str:
        """What is measured, as a table calls it."""
        return "training step" if self.runtime == "training" else f"{self.runtime}, batch {self.batch}"

    def read_config(self) -> CfgNode:
        """The network's config; no weights are fetched for it."""
        cfg = load_config(self.config_file, self.opts, recipe=NO_RECIPE)
        cfg.MODEL.BACKBONE.PRETRAINED = "none"
        return cfg


@dataclass(frozen=True)
class Cost:
    """The cost of a job, or the reason why there is none.

    Attributes:
        median: seconds per call.
        late: the 95th percentile of the same.
        memory: MB. On a GPU the peak that PyTorch allocated; on a CPU the peak of the resident memory of a
            process of its own, beyond what it held before the network was built. None where it is not known.
        reason: of what is missing, "" if nothing is.
    """

    median: float | None = None
    late: float | None = None
    memory: float | None = None
    reason: str = ""


def measure(job: Job) -> Cost:
    """Runs a job in this process; its memory is right in a process of its own only."""
    if job.threads:
        torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    cfg = job.read_config()
    device = cfg.MODEL.DEVICE
    provenance.reset_peak_memory(device)
    before = provenance.peak_memory_mb(device)
    step = _STEPS.get(job.runtime, _exported)(cfg, job)
    for _ in range(_WARM):
        step()
    times = []
    for _ in range(job.repeats):
        _synchronize(device)
        start = time.perf_counter()
        step()
        _synchronize(device)
        times.append(time.perf_counter() - start)
    peak = provenance.peak_memory_mb(device)
    memory = None if peak is None or before is None else peak - before
    reason = "" if memory is not None else "not told by this system"
    if job.runtime == "compiled" and device == "cpu":
        memory, reason = None, "not told apart from the compiler's"
    if job.format and device != "cpu":
        memory, reason = None, "not PyTorch's to tell"
    times.sort()
    return Cost(statistics.median(times), times[math.ceil(0.95 * len(times)) - 1], memory, reason)


def _inference(cfg: CfgNode, job: Job) -> tuple[DeployedNetwork, Tensor]:
    network = DeployedNetwork(build_segmentor(cfg))
    return network, 255 * torch.rand(job.batch, cfg.INPUT.CHANNELS, *job.size, device=cfg.MODEL.DEVICE)


def _eager(cfg: CfgNode, job: Job) -> Callable[[], object]:
    network, images = _inference(cfg, job)
    return torch.inference_mode()(lambda: network(images))


def _compiled(cfg: CfgNode, job: Job) -> Callable[[], object]:
    network, images = _inference(cfg, job)
    compiled = torch.compile(network, dynamic=False)
    return torch.no_grad()(lambda: compiled(images))


def _exported(cfg: CfgNode, job: Job) -> Callable[[], object]:
    assert job.format
    run, _ = job.format.open(Path(job.graph), cfg.MODEL.DEVICE, job.threads)
    images = 255 * torch.rand(job.batch, cfg.INPUT.CHANNELS, *job.size)
    return lambda: run(images)


def _training(cfg: CfgNode, job: Job) -> Callable[[], object]:
    """The network's own loss forward and backward and the optimizer, in float32; no data is read."""
    network = build_segmentor(cfg).train()
    optimizer = Trainer.build_optimizer(cfg, network)
    classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    batch = [
        {
            "image": torch.randint(256, (cfg.INPUT.CHANNELS, *job.size), dtype=torch.uint8),
            "sem_seg": torch.randint(classes, job.size),
        }
        for _ in range(job.batch)
    ]

    def step() -> None:
        optimizer.zero_grad()
        sum(network(batch).values()).backward()
        optimizer.step()

    return step


_STEPS = {"eager": _eager, "compiled": _compiled, "training": _training}


def _synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def write_graph(job: Job) -> None:
    """Writes the job's network in its format, whose making must not count as the memory of running it."""
    made = job.format
    assert made
    made.require()
    cfg = job.read_config()
    cfg.MODEL.DEVICE = "cpu"
    network = build_segmentor(cfg)
    metadata = build_metadata(cfg, network, job.size, True, "float32")
    with torch.no_grad():
        files = made.write(DeployedNetwork(network), metadata, batch=job.batch)
    write(files, made.stem(job.graph))


def measure_apart(job: Job) -> Cost:
    """Runs a job in a process of its own; what goes wrong there is the reason of an empty cost."""
    steps = [write_graph, measure] if job.format else [measure]
    context = multiprocessing.get_context("spawn")
    try:
        for step in steps:
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                cost = pool.submit(step, job).result()
    except BrokenProcessPool:
        return Cost(reason="the process was killed: too little memory?")
    except Exception as error:  # any error of a compiler or an exporter is a result here
        text = " ".join(message_of(error).split())
        return Cost(reason=f"{type(error).__name__}: {text[:120]}")
    assert cost is not None  # the last step is measure
    return cost


def default_runtimes(device: str) -> tuple[str, ...]:
    """Those that need no further package; compiling for a CPU takes minutes and has to be asked for."""
    return ("eager", *(["compiled"] if device != "cpu" else []), "onnxruntime", "training")


def benchmark(
    config_files: Sequence[str],
    *,
    opts: Sequence[str] = (),
    runtimes: Sequence[str] | None = None,
    batches: Sequence[int] = (1, 8),
    size: tuple[int, int] | None = None,
    repeats: int = 30,
    threads: int = 0,
    tell: Callable[[str], None] = print,
) -> tuple[pd.DataFrame, bool]:
    """A column per network, a row per quantity; a cell without a number says why.

    Args:
        config_files: of the networks.
        opts: config keys for all of them.
        runtimes: of :data:`RUNTIMES`; default :func:`default_runtimes`.
        batches: numbers of images at once in inference; training takes SOLVER.IMS_PER_BATCH.
        size: (H, W) in inference; default INPUT.CROP.SIZE of the first config, which is training's of each.
        repeats: timed calls of inference; training makes a third.
        threads: of the CPU, 0 for the default.
        tell: takes a line on each measurement as it is made.

    Returns:
        The table, and whether it is whole: Ctrl-C ends the measuring, and what was measured stays.

    Raises:
        FileNotFoundError, KeyError, ValueError: a config cannot be read, or a number is not positive.
    """
    if min(*batches, repeats) < 1:
        raise ValueError(f"Batch sizes {list(batches)} and repeats {repeats} must be positive.")
    configs = [load_config(file, opts, recipe=NO_RECIPE) for file in config_files]
    size = size or tuple(configs[0].INPUT.CROP.SIZE)
    names = _names(config_files)
    cells: dict[str, dict[str, str]] = {name: {} for name in names}
    jobs = []
    with tempfile.TemporaryDirectory() as folder:
        for name, file, cfg in zip(names, config_files, configs, strict=True):
            summary = summarize(cfg, name, size)
            cells[name]["parameters (M)"] = f"{summary.params / 1e6:.3f}"
            cells[name][f"GFLOPs at {size[0]}x{size[1]} (multiply-adds)"] = f"{summary.gmacs:.2f}"
            for runtime in (r for r in RUNTIMES if r in (runtimes or default_runtimes(cfg.MODEL.DEVICE))):
                what = (file, tuple(opts), runtime)
                if runtime == "training":
                    crop, batch = tuple(cfg.INPUT.CROP.SIZE), cfg.SOLVER.IMS_PER_BATCH
                    jobs.append((name, Job(*what, batch, crop, -(-repeats // 3), threads)))
                    continue
                made = _BY_RUNTIME.get(runtime)
                for batch in batches:
                    graph = f"{folder}/{len(jobs)}{made.ending}" if made else ""
                    jobs.append((name, Job(*what, batch, size, repeats, threads, graph)))
        whole = _measure_all(jobs, cells, tell)
    table = pd.DataFrame(cells).fillna("")
    if len(names) == 2:
        first, second = (pd.to_numeric(table[name], errors="coerce") for name in names)
        table["ratio"] = [f"{r:.2f}" if math.isfinite(r) else "" for r in second / first]
    return table, whole


def _measure_all(
    jobs: Sequence[tuple[str, Job]], cells: dict[str, dict[str, str]], tell: Callable[[str], None]
) -> bool:
    """Fills the cells of the networks, one line on each measurement; False if Ctrl-C ended it."""
    start = time.monotonic()
    for number, (name, job) in enumerate(jobs, 1):
        try:
            found = _cells(job, measure_apart(job))
        except KeyboardInterrupt:
            tell(f"Interrupted after {number - 1} of {len(jobs)} measurements, which are kept.")
            return False
        cells[name] |= found
        left = (time.monotonic() - start) / number * (len(jobs) - number)
        says = "; ".join(f"{key.removeprefix(f'{job.what}: ')} {value}" for key, value in found.items())
        tell(f"{number} of {len(jobs)}, about {left:.0f} s left: {name}, {job.what}: {says}")
    return True


def _names(config_files: Sequence[str]) -> list[str]:
    stems = [Path(file).stem for file in config_files]
    return stems if len(set(stems)) == len(stems) else list(map(str, config_files))


def _cells(job: Job, cost: Cost) -> dict[str, str]:
    """The rows of one job, named alike for all networks."""
    training, what = job.runtime == "training", job.what
    unit, factor = ("s", 1) if training else ("ms", 1000)
    given = {f"{what}: images": f"{job.batch} of {'x'.join(map(str, job.size))}"} if training else {}
    if cost.median is None or cost.late is None:
        return given | {f"{what}: median ({unit})": f"no: {cost.reason}"}
    return given | {
        f"{what}: median ({unit})": f"{cost.median * factor:.4g}",
        f"{what}: 95th percentile ({unit})": f"{cost.late * factor:.4g}",
        f"{what}: peak memory (MB)": cost.reason if cost.memory is None else f"{cost.memory:.0f}",
    }
