"""Networks beside timm's and torchvision's own of the same shape: wrapper and heads must cost nothing.

mmsegmentation's style computes something else with the same weights, so it is measured without a goal.
"""

from __future__ import annotations

import sys

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation import deeplabv3_resnet50

from fakd.config import load_config
from fakd.modeling import Segmentor, TimmBackbone

from .harness import Step
from .report import Report, main

GOAL = 1.05  # equal, but for what a clock repeats to
BACKBONES = (
    ("resnet18", 8, {}),
    ("mobilenetv2_100", 8, {}),
    ("hrnet_w18_small_v2", 32, {"feature_location": ""}),
)
CLASSES = 19


class Scores(nn.Module):
    """A segmentor's scores at the size of its images, as torchvision's networks give them."""

    def __init__(self, segmentor: Segmentor) -> None:
        super().__init__()
        self.segmentor = segmentor

    def forward(self, images: Tensor) -> list[Tensor]:
        output = self.segmentor.encode_normalized(images)
        size = images.shape[-2:]
        scores = [x for x in (output.logits, output.aux_logits) if x is not None]
        return [F.interpolate(x, size, mode="bilinear", align_corners=False) for x in scores]


def deeplabv3() -> nn.Module:
    """torchvision's DeepLabV3 on ResNet-50, with its auxiliary head."""
    options = (
        "MODEL.DEVICE cpu MODEL.BACKBONE.TIMM_NAME resnet50 MODEL.SEM_SEG_HEAD.CHANNELS 256 "
        "MODEL.AUXILIARY_HEAD.CHANNELS 256 MODEL.SEM_SEG_HEAD.ALIGN_CORNERS False "
        f"MODEL.SEM_SEG_HEAD.NUM_CLASSES {CLASSES}"
    )
    return Scores(Segmentor(load_config("configs/_base_/models/cirkd_deeplabv3_r101.yaml", options.split())))


def training_step(network: nn.Module, images: Tensor) -> Step:
    """Forward and backward of all scores, or of all maps at stride 4 and coarser."""

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
    side = 64 if report.tiny else 128
    images = torch.randn(2, 3, side, side)
    cases: dict[str, dict[str, nn.Module]] = {}
    for name, stride, options in BACKBONES:
        own = {"name": name, "output_stride": stride}
        cases[name] = {
            "timm": timm.create_model(name, features_only=True, output_stride=stride, **options),
            "fakd": TimmBackbone(**own, dilation_style="timm"),
            "fakd, mmsegmentation's style": TimmBackbone(**own),
        }
    theirs = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=True)
    cases["DeepLabV3 on resnet50"] = {"torchvision": theirs, "fakd": deeplabv3()}
    for name, networks in cases.items():
        for what, make in (("forward", inference), ("training step", training_step)):
            case = f"{what} of {name}, 2 images of {side}x{side}"
            costs = report.measure(case, {who: make(net.train(), images) for who, net in networks.items()})
            source = next(iter(networks))
            ratio = costs["fakd"].ms / costs[source].ms
            report.at_most("models", f"{case}: time over {source}'s", ratio, GOAL)


if __name__ == "__main__":
    sys.exit(main(fill))
