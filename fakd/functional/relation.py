"""Relations within a feature map: spatial attention, pairwise similarities, cosines to class centres."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Elements of a temporary on the CPU, so that it stays in the cache. Elsewhere launches cost more than memory.
CPU_BLOCK = 1 << 17
BLOCK = 1 << 24

# A vector shorter than this has no direction: what is left of a difference of equal maps is rounding.
SHORT = 1e-8


def unit_vectors(x: Tensor, dim: int, short: float = SHORT, detach_norm: bool = False) -> Tensor:
    """Vectors along ``dim`` divided by their length; those shorter than ``short`` are zero, without gradient.

    Args:
        x: any shape.
        dim: of the vectors.
        short: the length below which a vector counts as zero.
        detach_norm: take the length for a constant in the gradient.
    """
    length = _lengths(x, dim, short).unsqueeze(dim)
    return x / (length.detach() if detach_norm else length)


def _lengths(x: Tensor, dim: int, short: float = SHORT) -> Tensor:
    """Lengths of vectors along ``dim``; infinite for short ones, so that any quotient by them is zero."""
    length = torch.linalg.vector_norm(x, dim=dim)
    return length.masked_fill(length <= short, torch.inf)


def standardized(logits: Tensor) -> Tensor:
    """Logits with mean zero and deviation one over the classes, pixel by pixel (Sun et al. 2024, Eq. 11).

    Equal logits, up to rounding, become zero, without gradient. The deviation is that of the K classes; the
    authors' code divides by K - 1.

    Args:
        logits: (N, K, M).
    """
    centred = logits  # (N, K, M)
    for _ in range(2):  # z - mean; the second time takes off what the rounding of a large mean left
        centred = centred - centred.mean(1, keepdim=True)
    return logits.shape[1] ** 0.5 * unit_vectors(centred, 1, short=1e-4)  # sigma = |z - mean| / sqrt(K)


def standardized_channels(feature: Tensor, valid: Tensor) -> Tensor:
    """Channels with mean zero and deviation one over the valid pixels of an image; zero at the others.

    A channel that is constant, up to rounding, becomes zero, without gradient.

    Args:
        feature: (N, A, h, w).
        valid: (N, h, w) bool.
    """
    weight = valid.flatten(1)[:, None].to(feature.dtype)  # (N, 1, M)
    count = weight.sum(2, keepdim=True)  # (N, 1, 1)
    centred = feature.flatten(2)  # (N, A, M)
    for _ in range(2):  # as above
        centred = (centred - (centred * weight).sum(2, keepdim=True) / count.clamp(min=1)) * weight
    return (count.sqrt() * unit_vectors(centred, 2, short=1e-4)).view_as(feature)


def mean_square(feature: Tensor) -> Tensor:
    """(N, 1, h, w) mean over channels of the squares of (N, A, h, w)."""
    return feature.square().mean(1, keepdim=True)


def similarity_gap(student: Tensor, teacher: Tensor) -> Tensor:
    """Sum over images and pairs of nodes of (s_i . s_j - t_i . t_j)^2.

    Rows of the two similarity matrices are computed in blocks, together with the gradient, and neither
    matrix is kept. The form with products of channels instead of nodes, |S S'|^2 - 2 |S T'|^2 + |T T'|^2, is
    cheaper but cancels when the networks are alike.

    Args:
        student: (N, A, P) vectors of P nodes. Gradients reach it.
        teacher: (N, A', P).

    Returns:
        Scalar, not averaged.
    """
    return _SimilarityGap.apply(student, teacher)


class _SimilarityGap(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=student.device)
        grad = torch.empty_like(student) if ctx.needs_input_grad[0] else None
        for s, t, out in zip(student, teacher, student if grad is None else grad, strict=True):  # (A, P)
            for rows in _slices(s.shape[1], s.shape[1], s.device):  # r nodes against all P
                gap = s[:, rows].T @ s  # (r, P)   s_i . s_j
                gap.addmm_(t[:, rows].T, t, alpha=-1)  # (r, P)   s_i . s_j - t_i . t_j
                if grad is not None:
                    out[:, rows] = s @ gap.T  # (A, r)   a quarter of the slope: i and j each count twice
                total += gap.square_().sum()  # ()
        ctx.save_for_backward(grad)
        return total.to(student.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, None]:
        (grad,) = ctx.saved_tensors
        return None if grad is None else grad * (4 * g), None


def centre_similarity(feature: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Cosine between every pixel and the mean of its class in its image (IFVD's intra-class variation).

    Means are sums over (image, class) segments and the gradient is written out, so time and memory do not
    grow with the number of classes. Lower bound: read the feature, write its gradient.

    Args:
        feature: (N, A, h, w). Gradients reach it, through the pixel and through the mean.
        labels: (N, h, w) int64 in [0, K], K for void pixels, whose cosine is 1.
        num_classes: K.

    Returns:
        (N, h, w). The cosine of a vector that is short is 0, without gradient.
    """
    return _CentreSimilarity.apply(feature, labels, num_classes)


class _CentreSimilarity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, feature: Tensor, labels: Tensor, num_classes: int) -> Tensor:
        ctx.num_classes = num_classes
        cosine = torch.empty_like(labels, dtype=feature.dtype)  # (N, h, w)
        saved = []
        for images in _images(feature):  # n images: P = n h w pixels, S = n (K + 1) segments
            rows, segment = _rows(feature[images], labels[images], num_classes)  # (P, A), (P,)
            # |s_i| (P,), mu / |mu| (S, A), |mu| (S,), pixels of a segment (S,)
            length, centre, *sizes = _centres(rows, segment, len(labels[images]) * (num_classes + 1))
            out = cosine[images].view(-1)  # (P,)
            for part in _slices(len(rows), rows.shape[1], rows.device):
                out[part] = centre[segment[part]].mul_(rows[part]).sum(1)  # s_i . mu / |mu|
            out /= length  # cos(s_i, mu)
            saved += [length, centre, *sizes]
        cosine.masked_fill_(labels == num_classes, 1)
        ctx.save_for_backward(feature, labels, cosine, *saved)
        return cosine

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        feature, labels, cosine, *saved = ctx.saved_tensors
        grad = torch.empty_like(feature, memory_format=torch.contiguous_format)
        g = g.masked_fill(labels == ctx.num_classes, 0)
        for i, images in enumerate(_images(feature)):
            length, centre, size, count = saved[4 * i : 4 * i + 4]
            rows, segment = _rows(feature[images], labels[images], ctx.num_classes)  # (P, A), (P,)
            slope = g[images].reshape(-1)  # (P,)
            pull, push = slope / length, slope * cosine[images].view(-1)  # (P,)   g / |s|, g cos
            # The gradient of the centre: the sum over its pixels, minus the part along the centre itself.
            through = torch.zeros_like(centre)  # (S, A)
            for part in _slices(len(rows), rows.shape[1], rows.device):
                through.index_add_(0, segment[part], rows[part] * pull[part, None])  # sum_i g_i s_i / |s_i|
            along = slope.new_zeros(len(centre)).index_add_(0, segment, push)  # (S,)   sum_i g_i cos_i
            through = (through - along[:, None] * centre) / (size * count)[:, None]  # (S, A)   per pixel
            shrink = push / length.square()  # (P,)   g cos / |s|^2
            for part in _slices(len(rows), rows.shape[1], rows.device):
                y, own = segment[part], rows[part]  # (p,), (p, A)
                own.mul_(-shrink[part, None])
                own.addcmul_(centre[y], pull[part, None])  # (p, A)   g (mu / |mu| - cos s / |s|) / |s|
                own += through[y]  # and through the mean
            grad[images].movedim(1, -1).copy_(rows.view(*labels[images].shape, -1))
        return grad, None, None


def _rows(feature: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """A copy of the pixels (P, A) and the number of each one's segment, image by image and class by class."""
    n, a = feature.shape[:2]
    rows = torch.empty(labels.numel(), a, dtype=feature.dtype, device=feature.device)
    rows.view(*labels.shape, a).copy_(feature.movedim(1, -1))
    first = torch.arange(n, device=labels.device) * (num_classes + 1)
    return rows, (labels + first[:, None, None]).reshape(-1)


def _centres(rows: Tensor, segment: Tensor, segments: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Lengths of the pixels (P,), means as unit vectors (S, A), their lengths (S,) and pixel counts (S,)."""
    mean = rows.new_zeros(segments, rows.shape[1]).index_add_(0, segment, rows)
    count = rows.new_zeros(segments).index_add_(0, segment, torch.ones_like(rows[:, 0])).add_(1e-6)
    mean /= count[:, None]
    size = _lengths(mean, 1)
    return _lengths(rows, 1), mean.div_(size[:, None]), size, count


def _images(feature: Tensor) -> list[slice]:
    """One image at a time on the CPU, to save memory; all at once elsewhere, to save launches."""
    n = feature.shape[0]
    return [slice(i, i + 1) for i in range(n)] if feature.device.type == "cpu" else [slice(0, n)]


def _slices(rows: int, width: int, device: torch.device) -> Iterator[slice]:
    """Slices of so many rows of ``width`` entries that a temporary is one block."""
    step = max(1, (CPU_BLOCK if device.type == "cpu" else BLOCK) // width)
    return (slice(i, i + step) for i in range(0, rows, step))
