"""A FAKD step with the teacher's fast forms and mixed precision, beside the step without them."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode

from fakd.commands.quickstart import machine_options
from fakd.config import load_config
from fakd.engine.optimizer import build_optimizer
from fakd.functional.precision import autocast
from fakd.modeling import Distiller
from fakd.modeling.batch import stack_images
from fakd.modeling.build import build_distill_losses, build_segmentor
from fakd.modeling.cached_teacher import CachedTeacher
from fakd.modeling.depthwise import keep_depthwise_in_float32
from fakd.modeling.teacher import FrozenTeacher
from fakd.view_cache import CacheInfo, ViewCache

from .harness import Step
from .report import Report, main
from .step import batch_of

GOAL = 0.7
EXACT = ("fold", "channels_last")
HALF = (*EXACT, "bf16")


@dataclass(frozen=True)
class Pair:
    """A student and a teacher of the configs, and the size of a batch: images, (height, width), classes."""

    student: str
    teacher: str
    images: int
    size: tuple[int, int]
    num_classes: int


PAIRS = {
    "toyscenes": Pair("configs/toyscenes/student.yaml", "configs/toyscenes/teacher.yaml", 8, (96, 96), 12),
    "CamVid": Pair(
        "configs/camvid_pretrained/student_lite0.yaml",
        "configs/camvid_pretrained/teacher.yaml",
        4,
        (144, 192),
        11,
    ),
}


def cached(teacher: FrozenTeacher, batch: list[dict[str, Any]], folder: Path) -> CachedTeacher:
    """What a teacher says of a batch, in files."""
    output = teacher.encode(stack_images(batch, teacher.network.pixel_mean).tensor)
    spec = teacher.network.spec
    info = CacheInfo(
        **{"teacher": "", "scale": 1.0, "data": "", "look": "", "seed": 0, "top": 0, "views": 1},
        images=len(batch),
        num_classes=spec.num_classes,
        feature_channels=spec.feature_channels,
        stage_channels=dict(spec.stage_channels),
        maps={"logits": list(output.logits.shape[1:])},
    )
    cache = ViewCache.create(folder, info)
    cache.write(range(len(batch)), {"logits": output.logits.numpy()})
    return CachedTeacher(cache)


def training_step(
    pair: Pair,
    form: tuple[str, ...],
    mixed: bool,
    batch: list[dict[str, Any]],
    cache: Path | None = None,
    options: Sequence[str] = (),
) -> Step:
    """A whole step of an untrained pair but for reading the images, in the middle of a training.

    Args:
        pair: of networks.
        form: of the teacher, as in KD.TEACHER.FAST; () is off.
        mixed: SOLVER.AMP.ENABLED.
        batch: what every step sees.
        cache: folder for a cached teacher, which takes the place of the teacher; None: no such thing.
        options: keys of both networks.
    """
    torch.manual_seed(0)
    options = ["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.PRETRAINED", "none", *options]
    cfg = load_config(pair.student, options, recipe="fakd")
    student, teacher = build_segmentor(cfg), build_segmentor(load_config(pair.teacher, options))
    losses = build_distill_losses(cfg, student.spec, teacher.spec)
    model = Distiller(student=student, teacher=teacher, losses=losses).train()
    model.set_progress(0.5)
    if form:
        model.teacher.take_form(form)
    if cache is not None:
        model.teacher = cached(model.teacher, batch, cache)
    if mixed:
        keep_depthwise_in_float32(model.student)
    return _whole_step(model, cfg, mixed, batch)


def supervised_step(config: str, options: Sequence[str], mixed: bool, batch: list[dict[str, Any]]) -> Step:
    """The same of a network alone."""
    torch.manual_seed(0)
    cfg = load_config(config, options)
    return _whole_step(build_segmentor(cfg).train(), cfg, mixed, batch)


def _whole_step(model: Any, cfg: CfgNode, mixed: bool, batch: list[dict[str, Any]]) -> Step:
    optimizer = build_optimizer(cfg, model)

    def step() -> None:
        with autocast(model.device, torch.bfloat16 if mixed else None):
            losses = model(batch)
        sum(losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def quickstart(report: Report) -> None:
    """The steps that `make quickstart` takes, with and without what it adds for this machine."""
    toy = PAIRS["toyscenes"]
    batch = batch_of(2 if report.tiny else toy.images, toy.size, toy.num_classes)
    added = machine_options({"MODEL.DEVICE": "cpu"})
    side_by_side: dict[bool, list[Step]] = {}
    for quick in (False, True):
        options = ["MODEL.DEVICE", "cpu", *(["MODEL.CHANNELS_LAST", "True"] if quick else [])]
        mixed = quick and added["SOLVER.AMP.ENABLED"]
        alone = [supervised_step(config, options, mixed, batch) for config in (toy.teacher, toy.student)]
        side_by_side[quick] = [*alone, training_step(toy, EXACT, mixed, batch, options=options)]
    names = ("teacher", "student", "student with fakd")
    steps = {
        f"{name}{', quick' if quick else ''}": step
        for quick, each in side_by_side.items()
        for name, step in zip(names, each, strict=True)
    }
    costs = [cost.ms for cost in report.measure("a step of make quickstart", steps).values()]
    was, now = (
        sum(count * ms for count, ms in zip((900, 450, 900), each, strict=True))
        for each in (costs[:3], costs[3:])
    )
    report.at_most("fast", "make quickstart: time of its steps over that without its keys", now / was, 0.667)


def fill(report: Report) -> None:
    quickstart(report)
    for name, pair in PAIRS.items():
        size = (64, 64) if report.tiny else pair.size
        batch = batch_of(2 if report.tiny else pair.images, size, pair.num_classes)
        case = f"FAKD's step of the {name} pair, {len(batch)}x3x{size[0]}x{size[1]}"
        batch = [{**each, "view": i} for i, each in enumerate(batch)]
        variants: dict[str, tuple[Any, ...]] = {
            "KD.TEACHER.FAST off": ((), False),
            "fold, channels_last": (EXACT, False),
            "fold, channels_last, bf16": (HALF, False),
            "the same and SOLVER.AMP": (HALF, True),
        }
        with tempfile.TemporaryDirectory() as folder:
            cache = batch, Path(folder)
            steps = {each: training_step(pair, *keys, batch) for each, keys in variants.items()}
            steps["KD.TEACHER.CACHE"] = training_step(pair, (), False, *cache)
            steps["KD.TEACHER.CACHE and SOLVER.AMP"] = training_step(pair, (), True, *cache)
            costs = [cost.ms for cost in report.measure(case, steps).values()]
        for what, ms, goal in zip(
            ("a bf16 teacher", "a bf16 teacher and SOLVER.AMP", "a cached teacher and SOLVER.AMP"),
            (costs[2], costs[3], costs[5]),
            (0.85, GOAL, GOAL),
            strict=True,
        ):
            report.at_most("fast", f"{case}: time with {what} over off", ms / costs[0], goal)


if __name__ == "__main__":
    sys.exit(main(fill))
