"""Cross-entropy at the labels' resolution without the up-sampled scores."""

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .precision import autocast

# Of one strip of up-sampled scores: on a CPU it is to stay in the cache, on a GPU to be worth its launches.
_STRIP_BYTES = {"cpu": 4 << 20}
_STRIP_BYTES_ELSEWHERE = 256 << 20


def upsampled_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    ignore_value: int = 255,
    align_corners: bool = False,
    strip_bytes: int | None = None,
) -> Tensor:
    """The sum over pixels of the cross-entropy of bilinearly resized logits, as

        F.cross_entropy(F.interpolate(logits, labels.shape[-2:], mode="bilinear"), labels, reduction="sum")

    would give. A strip of rows is up-sampled at a time and its gradient brought back at once, so that the
    memory needed is that of the logits and one strip.

    Args:
        logits: (N, K, h, w) float.
        labels: (N, H, W) int64, 0 to K - 1 or ``ignore_value``.
        ignore_value: label of pixels that do not count.
        align_corners: of the resizing.
        strip_bytes: size of a strip; by default one that suits the device.

    Returns:
        A scalar in the dtype of the logits; it can be differentiated once.
    """
    if strip_bytes is None:
        strip_bytes = _STRIP_BYTES.get(logits.device.type, _STRIP_BYTES_ELSEWHERE)
    with autocast(logits.device, None):
        return _UpsampledCrossEntropy.apply(logits, labels, ignore_value, align_corners, strip_bytes)


class _UpsampledCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, ignore_value: int, align_corners: bool, strip_bytes: int
    ) -> Tensor:
        (n, k, h, w), (height, width) = logits.shape, labels.shape[-2:]
        rows, needed = _interpolation(h, height, align_corners, logits.dtype, logits.device)  # R (H, h)
        columns, _ = _interpolation(w, width, align_corners, logits.dtype, logits.device)  # C (W, w)
        slope = torch.zeros_like(logits) if ctx.needs_input_grad[0] else None  # (N, K, h, w)
        total = logits.new_zeros(())
        count = max(1, strip_bytes // (n * k * width * logits.element_size()))
        for first in range(0, height, count):  # a strip of r rows of labels, made of l rows of logits
            last = min(first + count, height)
            low, high = needed[first][0], needed[last - 1][1]
            mixed = rows[first:last, low:high]  # (r, l)
            scores = mixed @ logits[:, :, low:high] @ columns.T  # (N, K, r, W)   Z = R z C'
            target = labels[:, None, first:last]  # (N, 1, r, W)   y
            counts = target != ignore_value  # (N, 1, r, W)
            target = target.where(counts, 0)
            scores -= scores.amax(1, keepdim=True)
            chosen = scores.gather(1, target)  # (N, 1, r, W)   Z_y
            total_exp = scores.exp_().sum(1, keepdim=True)  # (N, 1, r, W)   sum_c exp Z_c
            total += ((total_exp.log() - chosen) * counts).sum()  # ()   -log p_y over the labelled pixels
            if slope is not None:
                scores *= counts / total_exp  # (N, K, r, W)   p
                scores.scatter_(1, target, scores.gather(1, target) - counts.to(scores.dtype))  # p - 1[c = y]
                slope[:, :, low:high] += mixed.T @ (scores @ columns)  # (N, K, l, w)   R' (p - 1) C
        ctx.save_for_backward(slope)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return grad * slope, None, None, None, None


@lru_cache(maxsize=64)
def _interpolation(
    source: int, target: int, align_corners: bool, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, list[tuple[int, int]]]:
    """Linear resizing of an axis as a (target, source) matrix, and the range of sources of every row."""
    unit = torch.eye(source, dtype=dtype)[None, None]
    matrix = F.interpolate(unit, (target, source), mode="bilinear", align_corners=align_corners)[0, 0]
    used = [row.nonzero() for row in matrix]
    return matrix.to(device), [(int(i.min()), int(i.max()) + 1) for i in used]
