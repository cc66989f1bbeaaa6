"""A FAKD step with the teacher's fast forms and mixed precision, beside the step without them."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from fakd.config import load_config
from fakd.engine.optimizer import build_optimizer
from fakd.functional.precision import autocast
from fakd.modeling import Distiller
from fakd.modeling.build import build_distill_losses, build_segmentor
from fakd.modeling.depthwise import keep_depthwise_in_float32

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


def training_step(pair: Pair, form: tuple[str, ...], mixed: bool, batch: list[dict[str, Tensor]]) -> Step:
    """A whole step of an untrained pair but for reading the images, in the middle of a training.

    Args:
        pair: of networks.
        form: of the teacher, as in KD.TEACHER.FAST; () is off.
        mixed: SOLVER.AMP.ENABLED.
        batch: what every step sees.
    """
    torch.manual_seed(0)
    options = ["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.PRETRAINED", "none"]
    cfg = load_config(pair.student, options, recipe="fakd")
    student, teacher = build_segmentor(cfg), build_segmentor(load_config(pair.teacher, options))
    losses = build_distill_losses(cfg, student.spec, teacher.spec)
    model = Distiller(student=student, teacher=teacher, losses=losses).train()
    model.set_progress(0.5)
    if form:
        model.teacher.take_form(form)
    if mixed:
        keep_depthwise_in_float32(model.student)
    optimizer = build_optimizer(cfg, model)

    def step() -> None:
        with autocast(model.device, torch.bfloat16 if mixed else None):
            losses = model(batch)
        sum(losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def fill(report: Report) -> None:
    for name, pair in PAIRS.items():
        size = (64, 64) if report.tiny else pair.size
        batch = batch_of(2 if report.tiny else pair.images, size, pair.num_classes)
        case = f"FAKD's step of the {name} pair, {len(batch)}x3x{size[0]}x{size[1]}"
        variants = {
            "KD.TEACHER.FAST off": ((), False),
            "fold, channels_last": (EXACT, False),
            "fold, channels_last, bf16": (HALF, False),
            "the same and SOLVER.AMP": (HALF, True),
        }
        steps = {each: training_step(pair, *keys, batch) for each, keys in variants.items()}
        off, *_, half, mixed = (cost.ms for cost in report.measure(case, steps).values())
        report.at_most("fast", f"{case}: bf16 teacher's time over off", half / off, 0.85)
        report.at_most("fast", f"{case}: bf16 teacher's and SOLVER.AMP's time over off", mixed / off, GOAL)


if __name__ == "__main__":
    sys.exit(main(fill))
