"""What the parts of a training step cost."""

import itertools
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from fakd.data import build_train_loader
from fakd.data.datasets.custom import register_custom
from fakd.functional.precision import autocast
from fakd.functional.resize import resize_labels
from fakd.losses import DistillLoss
from fakd.modeling import Distiller, Segmentor
from fakd.modeling.batch import stack_images, stack_labels
from fakd.modeling.depthwise import keep_depthwise_in_float32
from fakd.structures import LossInputs, SegOutput

from .check import check_config
from .compiling import compile_network
from .optimizer import build_optimizer
from .step import amp_dtype
from .teacher_form import quicken

DATA, TEACHER, FORWARD, BACKWARD = "data", "teacher", "student, forward", "student, backward"
CROSS_ENTROPY, OPTIMIZER = "cross-entropy", "optimizer"

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else PyTorch's profiler tells of every start and stop

Part = Callable[[], object]


@dataclass(frozen=True)
class Cost:
    """Milliseconds that the step waits for a part, and the memory it takes beyond what was there, in MB."""

    ms: float
    peak_mb: float


def step_costs(cfg: CfgNode, rounds: int = 5) -> dict[str, Cost]:
    """The cost of every part of a training step, by name, in the order of the step.

    A loss is its forward pass and its gradient with respect to the maps of the student. Workers read while
    the rest computes, so that the step waits only for what they do not get done.

    Args:
        cfg: of a training, with or without distillation.
        rounds: how often each part is timed, in turns; the median counts.

    Raises:
        ValueError, OSError, KeyError: the config or the data is not usable.
    """
    register_custom(cfg.DATASETS.CUSTOM)
    check_config(cfg)
    model = build_model(cfg).train()
    if isinstance(model, Distiller):
        quicken(model, cfg, resumed=False, keep=False)
        model.set_progress(0.5)
    if amp_dtype(cfg) is not None and cfg.MODEL.DEVICE == "cpu":
        keep_depthwise_in_float32(model)
    if cfg.SOLVER.COMPILE:
        compile_network(getattr(model, "student", model))
    reader = cfg.clone()
    reader.defrost()
    reader.DATALOADER.NUM_WORKERS = 0
    return part_costs(model, cfg, iter(build_train_loader(reader)), rounds)


def part_costs(model: Any, cfg: CfgNode, batches: Iterator[Any], rounds: int) -> dict[str, Cost]:
    """The same of a model that is built, on its device, in the state in which it trains.

    Args:
        model: a Segmentor or a Distiller.
        cfg: of its training.
        batches: what it is shown; the first is timed, and how long the next ones take.
        rounds: see :func:`step_costs`.
    """
    parts = _parts(model, cfg, batches)
    for part in parts.values():
        part()
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _, (name, part) in itertools.product(range(rounds), parts.items()):
        times[name].append(milliseconds(part, model.device))
    ms = {name: statistics.median(each) for name, each in times.items()}
    if workers := cfg.DATALOADER.NUM_WORKERS:
        ms[DATA] = max(0.0, ms[DATA] / workers - (sum(ms.values()) - ms[DATA]))
    return {name: Cost(ms[name], _peak(part, model.device) / 1e6) for name, part in parts.items()}


def advice(costs: Mapping[str, Cost], cfg: CfgNode) -> str:
    """The part that takes the largest share, and the keys that may lower it."""
    total = sum(cost.ms for cost in costs.values())
    name = max(costs, key=lambda each: costs[each].ms)
    share = f"{name} {100 * costs[name].ms / total:.0f} %"
    if name == DATA:
        workers = max(cfg.DATALOADER.NUM_WORKERS, 1)
        needed = math.ceil(workers * total / max(total - costs[DATA].ms, 1e-9))
        decoded = "" if cfg.DATALOADER.DECODED else ", or decode once (fakd data decode)"
        return f"{share}: raise DATALOADER.NUM_WORKERS to {needed}{decoded}"
    if name == TEACHER:
        return f"{share}: KD.TEACHER.FAST \"('fold', 'channels_last', 'bf16')\", or a cache (fakd cache)"
    if name in (FORWARD, BACKWARD):
        keys = {
            "SOLVER.AMP.ENABLED True": cfg.SOLVER.AMP.ENABLED,
            "MODEL.CHANNELS_LAST True": cfg.MODEL.CHANNELS_LAST,
        }
        left = " or ".join(key for key, is_set in keys.items() if not is_set)
        return f"{share}: {left or 'a smaller INPUT.CROP.SIZE or network'}"
    if name == OPTIMIZER:
        return f"{share}: a larger SOLVER.IMS_PER_BATCH"
    return f"{share}: it is the price of this loss at INPUT.CROP.SIZE {tuple(cfg.INPUT.CROP.SIZE)}"


def _parts(model: Any, cfg: CfgNode, batches: Any) -> dict[str, Part]:
    network: Segmentor = getattr(model, "student", model)
    batch = next(batches)
    images = stack_images(batch, network.pixel_mean).tensor
    labels = stack_labels(batch, network.ignore_value, network.device)
    dtype, optimizer = amp_dtype(cfg), build_optimizer(cfg, model)

    maps: list[Tensor] = []  # of the last forward pass, for one backward pass: the optimizer changes weights

    def forward() -> SegOutput:
        with autocast(network.device, dtype):
            output = network.encode(images)
        maps[:] = [x for x in (output.logits, output.aux_logits) if x is not None]
        return output

    def teach() -> SegOutput:
        with autocast(network.device, dtype):
            return model.teacher(images, batch)

    output = forward()
    slopes = [torch.randn_like(x) for x in maps]

    def loss_part(compute: Callable[[SegOutput], Tensor]) -> Part:
        leaves = output._map(lambda x: x.detach().float().requires_grad_())
        return lambda: compute(leaves).backward()

    parts: dict[str, Part] = {DATA: lambda: next(batches)}
    if isinstance(model, Distiller):
        parts[TEACHER] = teach
    parts[FORWARD] = forward
    parts[CROSS_ENTROPY] = loss_part(lambda x: torch.stack(list(network.losses(x, labels).values())).sum())
    if isinstance(model, Distiller):
        small = resize_labels(labels, output.feature.shape[-2:])
        taught = teach().detach().float()

        def on_maps(loss: DistillLoss) -> Callable[[SegOutput], Tensor]:
            return lambda x: loss(LossInputs(x, taught, small, small != network.ignore_value, 0.5))

        parts |= {name: loss_part(on_maps(loss)) for name, loss in model.losses.items()}
    parts[BACKWARD] = lambda: torch.autograd.backward(maps, slopes)
    parts[OPTIMIZER] = optimizer.step
    return parts


def milliseconds(part: Part, device: torch.device) -> float:
    """Wall-clock time of one call, until the device is done."""
    _wait(device)
    start = time.perf_counter()
    part()
    _wait(device)
    return 1e3 * (time.perf_counter() - start)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak(part: Part, device: torch.device) -> int:
    """Bytes at most beyond those before."""
    if device.type != "cuda":
        return allocations(part)[0]
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    part()
    return torch.cuda.max_memory_allocated(device) - before


def allocations(step: Part) -> tuple[int, int]:
    """Bytes alive at most during a step on the CPU, above those before it, and those of its largest one."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    alive = peak = largest = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            alive += event.nbytes()
            peak, largest = max(peak, alive), max(largest, event.nbytes())
    return peak, largest
