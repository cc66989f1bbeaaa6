"""Mean and covariance of the features of every class over all pixels seen so far (ISDA's estimator)."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..functional.ranks import num_ranks
from ..functional.segments import PACKED_ROW, class_counts, pack_by_class

PACKED_ROWS_AT_ONCE = 32


class ClassCovariance(nn.Module):
    """Exact running population statistics: any split into batches or ranks gives the same result.

    The update is the pooled merge of Wang et al. 2019 (ISDA), section 4: with w = n / (n + count),

        Sigma <- (1 - w) Sigma + w V + w (1 - w) (mean - m)(mean - m)'
        mean  <- (1 - w) mean + w m

    for a batch of n pixels with mean m and population covariance V. Pixels are centred before they
    are squared, since features behind a ReLU have means far from zero. A class that was never seen
    has a covariance of zero.

    State, for K classes and A channels: ``count`` (K,) int64, ``mean`` (K, A) and ``covariance``
    (K, A, A) or, if diagonal, (K, A).

    Args:
        num_classes: K.
        channels: A.
        diagonal: keep variances only.
    """

    count: Tensor
    mean: Tensor
    covariance: Tensor

    def __init__(self, num_classes: int, channels: int, diagonal: bool = False) -> None:
        super().__init__()
        shape = (num_classes, channels) if diagonal else (num_classes, channels, channels)
        self.diagonal = diagonal
        # float32 counts would stop growing at 2**24 pixels.
        self.register_buffer("count", torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(num_classes, channels))
        self.register_buffer("covariance", torch.zeros(shape))

    @torch.no_grad()
    def update(self, feature: Tensor, labels: Tensor, valid: Tensor) -> None:
        """Update with one batch; with a process group, with that of all ranks, by one all-reduce.

        Args:
            feature: (N, A, h, w); never gets a gradient.
            labels: (N, h, w) int64.
            valid: (N, h, w) bool; where False the label is not read.
        """
        k, a = self.mean.shape
        y = torch.where(valid, labels, k).reshape(-1)
        x = feature.detach().movedim(1, -1).reshape(-1, a).to(self.mean.dtype)
        counts, mean, covariance = self._over_ranks(*self._batch_statistics(x, y))

        w = (counts / (counts + self.count).clamp(min=1)).to(mean.dtype)
        step = mean - self.mean
        self.covariance.lerp_(covariance, _per_class(w, covariance))
        _add_outer(self.covariance, (w * (1 - w)).sqrt()[:, None] * step)
        self.mean += w[:, None] * step
        self.count += counts.to(self.count.dtype)

    @torch.no_grad()
    def spread(self) -> tuple[Tensor, Tensor]:
        """Trace and largest eigenvalue of every class's covariance, (K,) each; nan where it is not finite."""
        if self.diagonal:
            return self.covariance.sum(1), self.covariance.amax(1)
        trace = self.covariance.diagonal(dim1=1, dim2=2).sum(1)
        # The solver raises for anything else.
        finite = self.covariance.isfinite().all(2).all(1)
        largest = torch.linalg.eigvalsh(torch.where(finite[:, None, None], self.covariance, 0.0))[:, -1]
        return trace.where(finite, torch.nan), largest.where(finite, torch.nan)

    def _batch_statistics(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Counts (K,) float, means and population covariances of pixels x (P, A), labels y in [0, K].

        Lower bound: read the pixels, write the covariances, P A^2 multiply-adds. On the CPU the next largest
        cost is memory allocation, so the pixels are not copied again.
        """
        k, a = self.mean.shape
        counts = class_counts(y, k + 1)
        divisor = counts.clamp(min=1)[:, None]
        mean = x.new_zeros(k + 1, a).index_add_(0, y, x) / divisor
        if self.diagonal:
            covariance = (x.new_zeros(k + 1, a).index_add_(0, y, (x - mean[y]).square_()) / divisor)[:k]
        else:
            by = _covariance_by_sorting if x.device.type == "cpu" else _covariance_by_packing
            covariance = by(x, y, counts, mean)
        return counts[:k].to(x.dtype), mean[:k], covariance

    @staticmethod
    def _over_ranks(counts: Tensor, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Statistics of all ranks' pixels together.

        Every rank writes its counts and means to its own place of one buffer, so one sum carries
        them beside the scatters and the correction between the ranks' means is exact.
        """
        if num_ranks() == 1:
            return counts, mean, covariance
        ranks, (k, a) = num_ranks(), mean.shape
        own = mean.new_zeros(ranks, k, a + 1)
        own[dist.get_rank()] = torch.cat([counts[:, None], mean], 1)
        packed = torch.cat([(_per_class(counts, covariance) * covariance).reshape(-1), own.reshape(-1)])
        dist.all_reduce(packed)
        scatter = packed[: covariance.numel()].view_as(covariance)
        per_rank = packed[covariance.numel() :].view_as(own)
        n, means = per_rank[..., 0], per_rank[..., 1:]
        counts = n.sum(0)
        divisor = counts.clamp(min=1)
        mean = (n[..., None] * means).sum(0) / divisor[:, None]
        covariance = scatter / _per_class(divisor, scatter)
        for r in range(ranks):
            _add_outer(covariance, (n[r] / divisor).sqrt()[:, None] * (means[r] - mean))
        return counts, mean, covariance


def _covariance_by_sorting(x: Tensor, y: Tensor, counts: Tensor, mean: Tensor) -> Tensor:
    """Population covariances (K, A, A), one product per class present; reads the counts on the host.

    Args:
        x: (P, A) pixels.
        y: (P,) int64 in [0, K], K for pixels that do not count.
        counts: (K + 1,) pixels of each label.
        mean: (K + 1, A) their means.
    """
    positions = torch.argsort(y).split(counts.tolist())[:-1]
    covariance = x.new_zeros(len(positions), x.shape[1], x.shape[1])
    for i, m, out in zip(positions, mean, covariance, strict=False):
        if len(i):
            rows = x[i] - m
            out.addmm_(rows.T, rows, beta=0, alpha=1 / len(i))
    return covariance


def _covariance_by_packing(x: Tensor, y: Tensor, counts: Tensor, mean: Tensor) -> Tensor:
    """The same from rows of one class each, in a few batched products, without reading the counts."""
    num_pixels, num_classes = len(x), len(counts) - 1
    covariance = x.new_zeros(num_classes, x.shape[1], x.shape[1])
    index, row_class = pack_by_class(y, num_classes + 1, PACKED_ROW)
    counted = (index < num_pixels) & (row_class < num_classes)[:, None]
    scale = counted * counts.clamp(min=1).to(x.dtype).rsqrt()[row_class, None]
    index, row_class = index.clamp_(max=num_pixels - 1), row_class.clamp_(max=num_classes - 1)
    for i, c, s in zip(*(t.split(PACKED_ROWS_AT_ONCE) for t in (index, row_class, scale)), strict=True):
        rows = (x[i] - mean[c, None]) * s[..., None]
        covariance.index_add_(0, c, torch.bmm(rows.transpose(1, 2), rows))
    return covariance


def _per_class(value: Tensor, like: Tensor) -> Tensor:
    return value.view(-1, *[1] * (like.dim() - 1))


def _add_outer(matrix: Tensor, vector: Tensor) -> None:
    """In place: add vector vector' per class, or its diagonal."""
    if matrix.dim() == 2:
        matrix.addcmul_(vector, vector)
    else:
        matrix.baddbmm_(vector[:, :, None], vector[:, None, :])
