"""Losses of labels at the labels' resolution, without the up-sampled scores."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .precision import autocast

# Of one strip of up-sampled scores: fits a CPU's cache and is not given back to the system after every strip;
# large enough for a GPU's launch overhead.
_STRIP_BYTES = {"cpu": 2 << 20}
_STRIP_BYTES_ELSEWHERE = 256 << 20


def upsampled_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    ignore_value: int = 255,
    align_corners: bool = False,
    weight: Tensor | None = None,
    strip_bytes: int | None = None,
) -> Tensor:
    """The sum over pixels of the cross-entropy of bilinearly resized logits, as

        Z = F.interpolate(logits, labels.shape[-2:], mode="bilinear")
        F.cross_entropy(Z, labels, weight, ignore_index=ignore_value, reduction="sum")

    would give. A strip of rows is up-sampled at a time and its gradient brought back at once, so that the
    memory needed is that of the logits and one strip.

    Args:
        logits: (N, K, h, w) float.
        labels: (N, H, W) int64, 0 to K - 1 or ``ignore_value``.
        ignore_value: label of pixels that do not count.
        align_corners: of the resizing.
        weight: (K,) factor of the pixels of each class; None: 1.
        strip_bytes: size of a strip; by default one that suits the device.

    Returns:
        A scalar in the dtype of the logits; it can be differentiated once.
    """
    if weight is not None:
        weight = weight.to(logits.dtype)
    with autocast(logits.device, None):
        return _UpsampledCrossEntropy.apply(logits, labels, weight, ignore_value, align_corners, strip_bytes)


def hardest_labels(
    logits: Tensor,
    labels: Tensor,
    share: float,
    ignore_value: int = 255,
    align_corners: bool = False,
    strip_bytes: int | None = None,
) -> Tensor:
    """The labels with all pixels void but the share whose cross-entropy is largest.

    This is online hard example mining (Shrivastava et al. 2016) as DeepLab uses it: the share is of all
    pixels of the batch, void ones included, and pixels of equal loss at the limit all count.

    Args:
        logits, labels, ignore_value, align_corners, strip_bytes: as of :func:`upsampled_cross_entropy`.
        share: in (0, 1].
    """
    with autocast(logits.device, None), torch.no_grad():
        losses = torch.empty_like(labels, dtype=logits.dtype)  # (N, H, W)
        for strip in _strips(logits, labels.shape, align_corners, strip_bytes):
            losses[:, strip.rows] = F.cross_entropy(
                strip.scores(logits), labels[:, strip.rows], ignore_index=ignore_value, reduction="none"
            )
        kept = max(1, int(share * losses.numel()))
        limit = losses.flatten().topk(kept).values[-1]
    return labels.where(losses >= limit, ignore_value)


def upsampled_jaccard(
    logits: Tensor,
    labels: Tensor,
    ignore_value: int = 255,
    align_corners: bool = False,
    smooth: float = 1.0,
    strip_bytes: int | None = None,
) -> Tensor:
    """Soft Jaccard loss of bilinearly resized logits (Rahman and Wang 2016, Eq. 3), in strips.

        1 - mean_c [ (I_c + e) / (P_c + Y_c - I_c + e) ],    I_c = sum of p_c where the label is c

    with the sums over the labelled pixels of this process's batch: P_c of the probabilities p_c, Y_c of the
    labels. The mean is over the classes that the labels hold. It approximates 1 - mIoU, so that rare and
    small classes count as much as others.

    Args:
        logits, labels, ignore_value, align_corners, strip_bytes: as of :func:`upsampled_cross_entropy`.
        smooth: e, in pixels.

    Returns:
        A scalar in [0, 1], in the dtype of the logits; zero where all is void. It can be differentiated once.
    """
    with autocast(logits.device, None):
        hits, predicted, labelled = _SoftCounts.apply(
            logits, labels, ignore_value, align_corners, strip_bytes
        )
        jaccard = (hits + smooth) / (predicted + labelled - hits + smooth)
        present = (labelled > 0).to(logits.dtype)
        return ((1 - jaccard) * present).sum() / present.sum().clamp(min=1)


class _Strip:
    """Some rows of the labels, and how their scores come from rows of the logits."""

    def __init__(self, rows: slice, sources: slice, mixed: Tensor, columns: Tensor) -> None:
        self.rows, self.sources = rows, sources
        self.mixed, self.columns = mixed, columns  # (r, l) and (W, w)

    def scores(self, logits: Tensor) -> Tensor:
        """(N, K, r, W) up-sampled: Z = R (z C')."""
        return self.mixed @ (logits[:, :, self.sources] @ self.columns.T)

    def probabilities(self, logits: Tensor) -> Tensor:
        """The softmax of the scores over the classes, made in place."""
        scores = self.scores(logits)
        scores -= scores.amax(1, keepdim=True)
        return scores.exp_().div_(scores.sum(1, keepdim=True))

    def add_gradient(self, slope: Tensor, of_scores: Tensor) -> None:
        """Adds to the gradient (N, K, h, w) of the logits that of the scores (N, K, r, W): (R' ...) C."""
        slope[:, :, self.sources] += (self.mixed.T @ of_scores) @ self.columns

    def targets(self, labels: Tensor, ignore_value: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Classes (N, 1, r, W), 0 where void, and 1 where there is one or 0."""
        target = labels[:, None, self.rows]
        counts = target != ignore_value
        return target.where(counts, 0), counts.to(dtype)


def _strips(
    logits: Tensor, shape: tuple[int, ...], align_corners: bool, strip_bytes: int | None
) -> Iterator[_Strip]:
    (n, k, h, w), (height, width) = logits.shape, shape[-2:]
    if strip_bytes is None:
        strip_bytes = _STRIP_BYTES.get(logits.device.type, _STRIP_BYTES_ELSEWHERE)
    rows, needed = _interpolation(h, height, align_corners, logits.dtype, logits.device)  # R (H, h)
    columns, _ = _interpolation(w, width, align_corners, logits.dtype, logits.device)  # C (W, w)
    count = max(1, strip_bytes // (n * k * width * logits.element_size()))
    for first in range(0, height, count):
        last = min(first + count, height)
        low, high = needed[first][0], needed[last - 1][1]
        yield _Strip(slice(first, last), slice(low, high), rows[first:last, low:high], columns)


class _UpsampledCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        weight: Tensor | None,
        ignore_value: int,
        align_corners: bool,
        strip_bytes: int | None,
    ) -> Tensor:
        slope = torch.zeros_like(logits) if ctx.needs_input_grad[0] else None  # (N, K, h, w)
        total = logits.new_zeros(())
        for strip in _strips(logits, labels.shape, align_corners, strip_bytes):
            scores = strip.scores(logits)  # (N, K, r, W)   Z
            target, factor = strip.targets(
                labels, ignore_value, logits.dtype
            )  # (N, 1, r, W)   y; 0 where void
            if weight is not None:
                factor *= weight.gather(0, target.flatten()).view_as(factor)  # (N, 1, r, W)   w_y
            scores -= scores.amax(1, keepdim=True)
            chosen = scores.gather(1, target)  # (N, 1, r, W)   Z_y
            total_exp = scores.exp_().sum(1, keepdim=True)  # (N, 1, r, W)   sum_c exp Z_c
            total += ((total_exp.log() - chosen) * factor).sum()  # ()   -w_y log p_y over the labelled pixels
            if slope is not None:
                scores *= factor / total_exp  # (N, K, r, W)   w_y p
                scores.scatter_(1, target, scores.gather(1, target) - factor)  # w_y (p - 1[c = y])
                strip.add_gradient(slope, scores)
        ctx.save_for_backward(slope)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return grad * slope, None, None, None, None, None


class _SoftCounts(torch.autograd.Function):
    """I, P and Y of :func:`upsampled_jaccard`, (3, K).

    The backward pass makes each strip anew, since the gradient of a pixel depends on all sums.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        ignore_value: int,
        align_corners: bool,
        strip_bytes: int | None,
    ) -> Tensor:
        ctx.save_for_backward(logits, labels)
        ctx.options = ignore_value, align_corners, strip_bytes
        sums = logits.new_zeros(3, logits.shape[1])
        for strip in _strips(logits, labels.shape, align_corners, strip_bytes):
            target, counts = strip.targets(labels, ignore_value, logits.dtype)  # (N, 1, r, W)   y
            p = strip.probabilities(logits)  # (N, K, r, W)
            hits = p.gather(1, target) * counts  # (N, 1, r, W)   p_y
            sums[1] += p.mul_(counts).sum((0, 2, 3))
            p.zero_()
            sums[0] += p.scatter_(1, target, hits).sum((0, 2, 3))
            sums[2] += p.scatter_(1, target, counts).sum((0, 2, 3))
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, labels = ctx.saved_tensors
        ignore_value, align_corners, strip_bytes = ctx.options
        of_hits, of_predicted = grad[0], grad[1, :, None, None]  # (K,) and (K, 1, 1)   dL/dI, dL/dP
        slope = torch.zeros_like(logits)  # (N, K, h, w)
        for strip in _strips(logits, labels.shape, align_corners, strip_bytes):
            target, counts = strip.targets(labels, ignore_value, logits.dtype)  # (N, 1, r, W)   y
            p = strip.probabilities(logits).mul_(counts)  # (N, K, r, W)
            # g_c = dL/dp_c = dL/dP_c + dL/dI_c 1[c = y];  dL/dZ_c = p_c (g_c - sum_j p_j g_j)
            chosen = p.gather(1, target) * of_hits[target]  # (N, 1, r, W)   p_y dL/dI_y
            scores = p * of_predicted  # (N, K, r, W)
            scores.scatter_(1, target, scores.gather(1, target) + chosen)  # p_c g_c
            scores.addcmul_(p, scores.sum(1, keepdim=True), value=-1)
            strip.add_gradient(slope, scores)
        return slope, None, None, None, None


@lru_cache(maxsize=64)
def _interpolation(
    source: int, target: int, align_corners: bool, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, list[tuple[int, int]]]:
    """Linear resizing of an axis as a (target, source) matrix, and the range of sources of every row."""
    unit = torch.eye(source, dtype=dtype)[None, None]
    matrix = F.interpolate(unit, (target, source), mode="bilinear", align_corners=align_corners)[0, 0]
    used = [row.nonzero() for row in matrix]
    return matrix.to(device), [(int(i.min()), int(i.max()) + 1) for i in used]
