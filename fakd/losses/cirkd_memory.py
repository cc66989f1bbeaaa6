"""CIRKD, memory terms."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..functional.contrast import LEAST_TAU, contrast_kl, unit_rows
from ..registry import DISTILL_LOSS_REGISTRY
from ..statistics.class_queue import (
    STORAGE,
    ClassQueue,
    SharedRandom,
    class_means,
    gather_images,
    pick_pixels,
)
from ..structures import LossInputs, SegSpec
from ._taps import tapped_maps
from .base import DistillLoss, option


@DISTILL_LOSS_REGISTRY.register()
class CIRKDMemory(DistillLoss):
    r"""Matches similarities to queued pixels and regions of all classes (Yang et al. 2022, CIRKD, 3.3).

    $$
    \mathrm{mean}_i \mathrm{KL}\left( \mathrm{softmax}_k(t_i \cdot e_k / \tau)
    \parallel \mathrm{softmax}_k(p_i \cdot e_k / \tau) \right)
    $$

    once with keys e from the pixel queues and once from the region queues, summed with their factors. t is
    the teacher's feature and p the student's after a projector (1x1 convolution, batch norm, ReLU, 1x1
    convolution), both divided by their norm; i runs over the labelled pixels of this process. Before the
    loss, the batches of all ranks are pushed into the queues: of every class in an image up to
    ``pixels_per_image`` random pixels, and the normalised mean of all its pixels as its region. The keys are
    sampled again every step, at the same places of every class.

    Queues start as random unit vectors, which are used until they are overwritten, unless ``only_filled``.
    Corrected: an entry of a class queue is a pixel of that class (the authors' code takes as many pixels
    from the top of the image, ``authors_indexing``); all ranks hold the same queues; without a labelled
    pixel the loss is 0.

    Memory: K (pixel_queue + region_queue) A numbers. For 150 classes and 512 channels 150 x 22000 x 512 x 2
    bytes = 3.4 GB in float16 (6.8 GB in float32); a step adds the gathered features (16 images of 64 x 64:
    67 MB), a copy of the 5250 keys (11 MB) and a few tiles of similarities (each 67 MB), never the 16384 x
    5250 matrix. That leaves 12 GB of a 16 GB card to the two networks.
    """

    paper = "Yang et al. 2022 (CIRKD), section 3.3"
    needs_labels = True

    @dataclass
    class Config(DistillLoss.Config):
        weight: float = option(0.1, "factor of this loss in the sum; 0.01 on Pascal VOC", least=0)
        pixel_factor: float = option(1.0, "of the pixel term; 0 builds no pixel queue", least=0)
        region_factor: float = option(1.0, "of the region term; 0 builds no region queue", least=0)
        tau: float = option(0.1, "temperature of the similarities", least=LEAST_TAU)
        pixel_queue: int = option(20000, "pixels kept per class", least=1)
        region_queue: int = option(2000, "regions kept per class", least=1)
        pixel_contrast: int = option(4096, "pixels a step compares with, of all classes together", least=1)
        region_contrast: int = option(1024, "regions a step compares with, of all classes together", least=1)
        pixels_per_image: int = option(16, "pixels kept of a class in an image, at most", least=1)
        storage: str = option("float16", "of the queues: float16 or float32", choices=tuple(STORAGE))
        only_filled: bool = option(False, "leave out queue entries that were never written")
        authors_indexing: bool = option(
            False, "fill the pixel queues as the authors' code does, which is wrong"
        )

    @classmethod
    def reads_teacher_logits(cls, config: Config) -> bool:
        return False

    def __init__(self, config: Config, student: SegSpec, teacher: SegSpec) -> None:
        super().__init__(config, student, teacher)
        self.num_classes, channels = student.num_classes, teacher.feature_channels
        self.projector = nn.Sequential(
            nn.Conv2d(student.feature_channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 1, bias=False),
        )
        self.random = SharedRandom()
        self.queues: Any = nn.ModuleDict()  # of ClassQueue
        for name in ("pixel", "region"):
            if getattr(config, f"{name}_factor") > 0:
                key = f"KD.CIRKDMemory.{name.upper()}_QUEUE"
                size = getattr(config, f"{name}_queue")
                self.queues[name] = ClassQueue(self.num_classes, size, channels, config.storage, key)

    def forward(self, inputs: LossInputs) -> Tensor:
        feature, teacher = tapped_maps(inputs, "feature")
        with torch.no_grad():
            teacher = unit_rows(teacher)
            if self.training:
                self.push(teacher, inputs.classes.flatten(1))
        student, teacher = unit_rows(self.projector(feature)).flatten(0, 1), teacher.flatten(0, 1)
        weight = inputs.valid.flatten().to(student.dtype)
        weight = weight / weight.sum().clamp(min=1)
        total = student.new_zeros(())
        for name, queue in self.queues.items():
            count = getattr(self.config, f"{name}_contrast") // self.num_classes + 1
            keys, key_weight = queue.sample(count, self.random, self.config.only_filled)
            value = contrast_kl(student, teacher, keys.to(student), self.config.tau, weight, key_weight)
            self.log_scalar(name, value)
            total = total + getattr(self.config, f"{name}_factor") * value
        return total

    def push(self, teacher: Tensor, classes: Tensor) -> None:
        """Put the batches of all ranks into the queues.

        Args:
            teacher: (N, M, A) unit vectors.
            classes: (N, M) int64 in [0, K], K for void.
        """
        rows, classes = gather_images(teacher.to(STORAGE[self.config.storage])), gather_images(classes)
        n, m, _ = rows.shape
        if "pixel" in self.queues:
            most = self.config.pixels_per_image
            picked, ordinal = pick_pixels(classes, self.num_classes, most, self.random)
            source = rows
            if self.config.authors_indexing:  # the i-th pixel of a class stands for the i-th of the image
                source = rows[torch.arange(n, device=rows.device)[:, None], ordinal]
            self.queues["pixel"].push(source.flatten(0, 1), picked.flatten(), n * min(most, m))
        if "region" in self.queues:
            self.queues["region"].push(*class_means(rows, classes, self.num_classes), n)
