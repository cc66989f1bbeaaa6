"""Backbones beside timm's own of the same shape: the wrapper and mmsegmentation's style must cost nothing."""

from __future__ import annotations

import sys

import timm
import torch
from torch import Tensor, nn

from fakd.modeling import TimmBackbone

from .harness import Step
from .report import Report, main

GOAL = 1.05  # equal, but for what a clock repeats to
NETWORKS = (
    ("resnet18", 8, {}),
    ("mobilenetv2_100", 8, {}),
    ("hrnet_w18_small_v2", 32, {"feature_location": ""}),
)


def training_step(network: nn.Module, images: Tensor) -> Step:
    """Forward and backward of all maps at stride 4 and coarser."""

    def step() -> None:
        maps = network(images)
        maps = list(maps.values()) if isinstance(maps, dict) else maps
        sum(x.mean() for x in maps[-4:]).backward()
        network.zero_grad()

    return step


def inference(network: nn.Module, images: Tensor) -> Step:
    def step() -> None:
        with torch.no_grad():
            network(images)

    return step


def fill(report: Report) -> None:
    side = 64 if report.tiny else 256
    images = torch.randn(2, 3, side, side)
    for name, stride, options in NETWORKS:
        plain = timm.create_model(name, features_only=True, output_stride=stride, **options)
        ours = TimmBackbone(name=name, output_stride=stride)
        for what, make in (("forward", inference), ("training step", training_step)):
            case = f"{what} of {name}, 2 images of {side}x{side}"
            steps = {"timm": make(plain.train(), images), "fakd": make(ours.train(), images)}
            costs = report.measure(case, steps)
            report.at_most("models", f"{case}: time over timm's", costs["fakd"].ms / costs["timm"].ms, GOAL)


if __name__ == "__main__":
    sys.exit(main(fill))
