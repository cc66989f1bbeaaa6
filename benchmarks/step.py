"""FAKD's training step beside CWD's, and that of its other form beside PD's."""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from fakd.config import load_config
from fakd.modeling import Distiller
from fakd.modeling.build import build_distill_losses, build_segmentor

from .harness import Step
from .report import Report, main

GOAL = 1.05
FULL_WIDTH = "MODEL.BACKBONE.WIDTH 1.0 MODEL.SEM_SEG_HEAD.CHANNELS 128 MODEL.AUXILIARY_HEAD.CHANNELS 64"


def distiller(recipe: str, options: list[str]) -> Distiller:
    """The toyscenes student beside the toyscenes teacher, untrained; every recipe gets the same weights."""
    torch.manual_seed(0)
    options = ["MODEL.DEVICE", "cpu", *options]
    cfg = load_config("configs/toyscenes/student.yaml", options, recipe=recipe)
    student = build_segmentor(cfg)
    teacher = build_segmentor(load_config("configs/toyscenes/teacher.yaml", options))
    losses = build_distill_losses(cfg, student.spec, teacher.spec)
    return Distiller(student=student, teacher=teacher, losses=losses).train()


def training_step(model: Distiller, batch: list[dict[str, Tensor]]) -> Step:
    """Forward of both networks, all losses, backward and the optimizer, in the middle of a training."""
    optimizer = torch.optim.SGD(model.student.parameters(), lr=1e-4, momentum=0.9)
    model.set_progress(0.5)

    def step() -> None:
        sum(model(batch).values()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def batch_of(images: int, size: tuple[int, int], num_classes: int) -> list[dict[str, Tensor]]:
    """Noise, and a random label in every patch that is one pixel at stride 8."""
    patches = torch.randint(num_classes, (images, size[0] // 8, size[1] // 8))
    labels = patches.repeat_interleave(8, 1).repeat_interleave(8, 2)
    return [{"image": torch.randint(256, (3, *size)), "sem_seg": y} for y in labels]


def fill(report: Report) -> None:
    for network, options, images, side, num_classes in (
        ("the toyscenes networks", "", 8, 96, 12),
        ("ResNet-18", FULL_WIDTH, 2, 128, 19),
        ("ResNet-18", FULL_WIDTH, 2, 128, 150),
    ):
        if report.tiny:
            options, images, side = "", 2, 32
        batch = batch_of(images, (side, side), num_classes)
        keys = [*options.split(), "MODEL.SEM_SEG_HEAD.NUM_CLASSES", str(num_classes)]
        case = f"step of {network}, {images}x3x{side}x{side}, K {num_classes}"
        for plain, augmented in (("cwd", "fakd"), ("pd", "fakd_pd")):
            steps = {word: training_step(distiller(word, keys), batch) for word in (plain, augmented)}
            before, after = report.measure(case, steps).values()
            report.at_most("step", f"{case}: {augmented}'s time over {plain}'s", after.ms / before.ms, GOAL)
            peak = after.peak / before.peak
            report.at_most("step", f"{case}: {augmented}'s peak over {plain}'s", peak, GOAL, timed=False)


if __name__ == "__main__":
    sys.exit(main(fill))
