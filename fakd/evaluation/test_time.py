"""Test-time inference: whole images or sliding windows, one scale or several, flipped too."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from torch import Tensor, nn


class TestTimeModel(nn.Module):
    """Runs a network on sliding windows, at several scales and flipped, under detectron2's contract.

    Args:
        model: gives ``sem_seg`` scores (K, H, W) at the size of its input image.
        window: (height, width) of the windows; (0, 0) for whole images. Windows start at multiples of the
            stride, the last is moved back to end at the border, an image smaller than the window is used
            whole. Where windows overlap, their scores are averaged.
        stride: (down, right), positive and at most the window.
        scales: factors of the size of the image.
        flip: average with every image flipped horizontally as well.

    The probabilities of several views of an image are averaged; the scores of a single one are returned as
    they are.

    Raises:
        ValueError: the stride does not fit the window, or a scale is not positive.
    """

    __test__ = False  # pytest takes the name for a test

    def __init__(
        self,
        model: nn.Module,
        window: tuple[int, int] = (0, 0),
        stride: tuple[int, int] = (0, 0),
        scales: tuple[float, ...] = (1.0,),
        flip: bool = False,
    ) -> None:
        super().__init__()
        if any(window) and not all(0 < s <= w for s, w in zip(stride, window, strict=True)):
            raise ValueError(
                f"TEST.STRIDE is {tuple(stride)}, but must be positive and at most TEST.WINDOW, "
                f"{tuple(window)}: the windows would leave pixels out."
            )
        if not scales or min(scales) <= 0:
            raise ValueError(f"TEST.SCALES must be positive factors, got {tuple(scales)}.")
        self.model = model
        self.window, self.stride, self.scales, self.flip = tuple(window), tuple(stride), tuple(scales), flip
        self.training = model.training  # what detectron2's evaluation restores at its end

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Tensor]]:
        """Per image ``{"sem_seg": (K, height, width)}``, at the size that the input asks for."""
        return [{"sem_seg": self._scores(item)} for item in batched_inputs]

    def _scores(self, item: dict[str, Any]) -> Tensor:
        views = list(self._views(item["image"]))
        size = item.get("height", item["image"].shape[1]), item.get("width", item["image"].shape[2])
        if len(views) == 1:
            return _resized(self._shown(views[0][0]), size)
        total: Tensor | None = None
        for image, flipped in views:
            probabilities = _resized(self._shown(image), size).softmax(0)
            if flipped:
                probabilities = probabilities.flip(-1)
            total = probabilities if total is None else total + probabilities
        assert total is not None  # TEST.SCALES is not empty
        return total / len(views)

    def _views(self, image: Tensor) -> Iterator[tuple[Tensor, bool]]:
        height, width = image.shape[1:]
        for scale in self.scales:
            size = max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
            view = image if scale == 1 else _resized(image.float(), size, antialias=True)
            yield view, False
            if self.flip:
                yield view.flip(-1), True

    def _shown(self, image: Tensor) -> Tensor:
        """(K, H, W) scores at the image's own size, whole or from windows."""
        height, width = image.shape[1:]
        if not any(self.window) or (height <= self.window[0] and width <= self.window[1]):
            return self.model([{"image": image}])[0]["sem_seg"]
        total: Tensor | None = None
        counts = image.new_zeros(height, width, dtype=torch.float32)
        for rows, columns in self.windows(height, width):
            scores = self.model([{"image": image[:, rows, columns]}])[0]["sem_seg"]
            if total is None:
                total, counts = scores.new_zeros(len(scores), height, width), counts.to(scores.device)
            total[:, rows, columns] += scores
            counts[rows, columns] += 1
        assert total is not None  # there is always a window
        return total / counts

    def windows(self, height: int, width: int) -> list[tuple[slice, slice]]:
        """Rows and columns of every window over an image; together they cover it."""
        rows, columns = (
            [slice(max(end - window, 0), end) for end in _ends(size, window, stride)]
            for size, window, stride in zip((height, width), self.window, self.stride, strict=True)
        )
        return [(r, c) for r in rows for c in columns]


def _ends(size: int, window: int, stride: int) -> list[int]:
    number = max(math.ceil((size - window) / stride), 0) + 1
    return [min(i * stride + window, size) for i in range(number)]


def _resized(maps: Tensor, size: tuple[int, int], antialias: bool = False) -> Tensor:
    if tuple(maps.shape[1:]) == tuple(size):
        return maps
    return F.interpolate(maps[None], size, mode="bilinear", align_corners=False, antialias=antialias)[0]


def as_tested(model: nn.Module, cfg: CfgNode) -> nn.Module:
    """The network wrapped as TEST.WINDOW, STRIDE, SCALES and FLIP say; itself for one whole view."""
    test = cfg.TEST
    if not any(test.WINDOW) and tuple(test.SCALES) == (1.0,) and not test.FLIP:
        return model
    return TestTimeModel(model, tuple(test.WINDOW), tuple(test.STRIDE), tuple(test.SCALES), test.FLIP)
