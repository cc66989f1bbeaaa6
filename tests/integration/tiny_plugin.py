"""What the integration tests plug in: a dataset of a few scenes, and a loss that fails on command."""

import os
from dataclasses import dataclass

import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from fakd.data.datasets.toyscenes import CLASSES, VOID, draw_scene
from fakd.files import atomic_write
from fakd.losses.base import DistillLoss, option
from fakd.registry import DISTILL_LOSS_REGISTRY

ROOT = os.environ["FAKD_TINY_ROOT"]
SPLITS = {"tiny_train": range(12), "tiny_val": range(100, 106)}


def load(name):
    """Draws the scenes of a split unless they are there, and lists them."""
    folder = os.path.join(ROOT, name)
    os.makedirs(folder, exist_ok=True)
    records = []
    for seed in SPLITS[name]:
        files = [os.path.join(folder, f"{seed}{kind}.png") for kind in ("", "_label")]
        if not os.path.exists(files[1]):
            for array, file in zip(draw_scene(seed), files, strict=True):
                with atomic_write(file) as stream:  # another process may draw them too
                    Image.fromarray(array).save(stream, "png")
        with Image.open(files[0]) as image:
            width, height = image.size
        sizes = {"height": height, "width": width, "image_id": str(seed)}
        records.append({"file_name": files[0], "sem_seg_file_name": files[1], **sizes})
    return records


for split in SPLITS:
    if split not in DatasetCatalog.list():
        DatasetCatalog.register(split, lambda name=split: load(name))
        MetadataCatalog.get(split).set(
            stuff_classes=[name for name, _ in CLASSES], ignore_label=VOID, evaluator_type="sem_seg"
        )


class FailsAt(DistillLoss):
    """A finite loss, until the training has come as far as ``at``."""

    @dataclass
    class Config(DistillLoss.Config):
        at: float = option(0.5, "progress from which the loss, or its gradient, is not finite")
        where: str = option("loss", "or gradient")

    def forward(self, inputs):
        square = inputs.student.logits.square().mean()
        if inputs.progress < self.config.at:
            return square
        if self.config.where == "loss":
            return square * torch.nan
        return (square * 0).sqrt() + square  # finite, but its gradient is 0 * infinity


if "FailsAt" not in DISTILL_LOSS_REGISTRY:
    DISTILL_LOSS_REGISTRY.register(FailsAt)
