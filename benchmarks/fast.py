"""FAKD's step as the configs have it, beside the same step without the teacher's fast forms."""

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
from fakd.engine.step import amp_dtype
from fakd.engine.teacher_form import candidates
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


@dataclass(frozen=True)
class Pair:
    """A student and a teacher of the configs, and the size of a batch.

    Attributes:
        student, teacher: configs.
        images, size, num_classes: of a batch; size is (height, width).
        plain: keys with which its step was computed before there were fast forms, beside PLAIN.
    """

    student: str
    teacher: str
    images: int
    size: tuple[int, int]
    num_classes: int
    plain: tuple[str, ...] = ()


PLAIN = ("KD.TEACHER.FAST", "off", "SOLVER.AMP.ENABLED", "False")
PAIRS = {
    "toyscenes": Pair(
        "configs/toyscenes/student.yaml",
        "configs/toyscenes/teacher.yaml",
        8,
        (96, 96),
        12,
        ("MODEL.CHANNELS_LAST", "False"),
    ),
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
    pair: Pair, options: Sequence[str], batch: list[dict[str, Any]], cache: Path | None = None
) -> Step:
    """A whole step of an untrained pair but for reading the images, in the middle of a training.

    Args:
        pair: of networks.
        options: keys beside those of its configs.
        batch: what every step sees.
        cache: folder for a cached teacher, which takes the place of the teacher; None: no such thing.
    """
    torch.manual_seed(0)
    options = ["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.PRETRAINED", "none", *options]
    cfg = load_config(pair.student, options, recipe="fakd")
    student, teacher = build_segmentor(cfg), build_segmentor(load_config(pair.teacher, options))
    losses = build_distill_losses(cfg, student.spec, teacher.spec)
    model = Distiller(student=student, teacher=teacher, losses=losses).train()
    model.set_progress(0.5)
    if cache is not None:
        model.teacher = cached(model.teacher, batch, cache)
    elif (asked := cfg.KD.TEACHER.FAST) != ("off",):
        # The last is what `auto` comes to: no trained teacher here agrees with itself in half precision.
        model.teacher.take_form(candidates(model.device, asked, cfg.SOLVER.AMP.ENABLED)[-1])
    return _whole_step(model, cfg, batch)


def supervised_step(config: str, options: Sequence[str], batch: list[dict[str, Any]]) -> Step:
    """The same of a network alone."""
    torch.manual_seed(0)
    cfg = load_config(config, ["MODEL.DEVICE", "cpu", *options])
    return _whole_step(build_segmentor(cfg).train(), cfg, batch)


def _whole_step(model: Any, cfg: CfgNode, batch: list[dict[str, Any]]) -> Step:
    optimizer, dtype = build_optimizer(cfg, model), amp_dtype(cfg)
    if dtype is not None:
        keep_depthwise_in_float32(model)

    def step() -> None:
        with autocast(model.device, dtype):
            losses = model(batch)
        sum(losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def quickstart(report: Report) -> None:
    """The steps that `make quickstart` takes, beside those of the plain form."""
    toy = PAIRS["toyscenes"]
    batch = batch_of(2 if report.tiny else toy.images, toy.size, toy.num_classes)
    added = [str(word) for item in machine_options({"MODEL.DEVICE": "cpu"}).items() for word in item]
    names = ("teacher", "student", "student with fakd")
    steps: dict[str, Step] = {}
    for form, options in (("plain", [*PLAIN, *toy.plain]), ("quick", added)):
        alone = [supervised_step(config, options, batch) for config in (toy.teacher, toy.student)]
        each = zip(names, [*alone, training_step(toy, options, batch)], strict=True)
        steps |= {f"{name}, {form}": step for name, step in each}
    costs = [cost.ms for cost in report.measure("a step of make quickstart", steps).values()]
    was, now = (
        sum(count * ms for count, ms in zip((900, 450, 900), each, strict=True))
        for each in (costs[:3], costs[3:])
    )
    report.at_most("fast", "make quickstart: time of its steps over the plain form's", now / was, 0.667)


def fill(report: Report) -> None:
    quickstart(report)
    for name, pair in PAIRS.items():
        size = (64, 64) if report.tiny else pair.size
        batch = batch_of(2 if report.tiny else pair.images, size, pair.num_classes)
        case = f"FAKD's step of the {name} pair, {len(batch)}x3x{size[0]}x{size[1]}"
        batch = [{**each, "view": i} for i, each in enumerate(batch)]
        plain = [*PLAIN, *pair.plain]
        exact = [*plain, "KD.TEACHER.FAST", str(EXACT)]
        variants = {
            "plain": plain,
            "teacher folded and channels last": exact,
            "the same, student channels last": [*exact, "MODEL.CHANNELS_LAST", "True"],
            "the config": [],
            "the config with SOLVER.AMP": ["SOLVER.AMP.ENABLED", "True"],
        }
        with tempfile.TemporaryDirectory() as folder:
            steps = {each: training_step(pair, keys, batch) for each, keys in variants.items()}
            steps["the config with KD.TEACHER.CACHE"] = training_step(pair, [], batch, Path(folder))
            costs = {each: cost.ms for each, cost in report.measure(case, steps).items()}
        for what in ("the config", "the config with KD.TEACHER.CACHE"):
            report.at_most("fast", f"{case}: time of {what} over plain", costs[what] / costs["plain"], GOAL)


if __name__ == "__main__":
    sys.exit(main(fill))
