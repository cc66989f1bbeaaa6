"""Mean and covariance of the features of every class over all pixels seen so far (ISDA's estimator)."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..functional.segments import class_counts, pack_by_class

PACKED_ROW = 64
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
        """Take in one batch; with a process group, that of all ranks, by one all-reduce.

        Args:
            feature: (N, A, h, w); never gets a gradient.
            labels: (N, h, w) int64.
            valid: (N, h, w) bool; where False the label is not read.
        """
        k, a = self.mean.shape
        y = torch.where(valid, labels, k).reshape(-1)
        x = feature.detach().movedim(1, -1).reshape(-1, a).to(self.mean.dtype)
        counts, mean, scatter = self._batch_statistics(x, y)
        counts, mean, scatter = self._over_ranks(counts, mean, scatter)

        w = (counts / (counts + self.count).clamp(min=1)).to(mean.dtype)
        step = mean - self.mean
        spread = (w * (1 - w)).sqrt()[:, None] * step
        scatter *= _per_class(w / counts.clamp(min=1), scatter)
        self.covariance *= _per_class(1 - w, self.covariance)
        self.covariance += scatter
        _add_outer(self.covariance, spread)
        self.mean += w[:, None] * step
        self.count += counts.to(self.count.dtype)

    def _batch_statistics(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Counts (K,) float, means (K, A) and centred scatter of pixels x (P, A), labels y in [0, K]."""
        k, a = self.mean.shape
        counts = class_counts(y, k + 1)
        mean = x.new_zeros(k + 1, a).index_add_(0, y, x) / counts.clamp(min=1)[:, None]
        x = x - mean[y]
        scatter = torch.zeros_like(self.covariance)
        if self.diagonal:
            scatter = x.new_zeros(k + 1, a).index_add_(0, y, x.square())[:k]
        elif x.device.type == "cpu":
            rows = x[torch.argsort(y)].split(counts.tolist())
            for c in range(k):
                if len(rows[c]):
                    torch.mm(rows[c].T, rows[c], out=scatter[c])
        else:
            # Rows of one class each, so that a few batched products do it without a host round trip.
            index, row_class = pack_by_class(y, k + 1, PACKED_ROW)
            x = torch.cat([x, x.new_zeros(1, a)])
            keep = (row_class < k).to(x.dtype)[:, None, None]
            for i, c, kept in zip(
                *(t.split(PACKED_ROWS_AT_ONCE) for t in (index, row_class.clamp(max=k - 1), keep)), strict=True
            ):
                rows = x[i] * kept
                scatter.index_add_(0, c, torch.bmm(rows.transpose(1, 2), rows))
        return counts[:k].to(x.dtype), mean[:k], scatter

    @staticmethod
    def _over_ranks(counts: Tensor, mean: Tensor, scatter: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Statistics of all ranks' pixels together.

        Every rank writes its counts and means to its own place of one buffer, so one sum carries
        them beside the scatters and the correction between the ranks' means is exact.
        """
        if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return counts, mean, scatter
        ranks, (k, a) = dist.get_world_size(), mean.shape
        own = mean.new_zeros(ranks, k, a + 1)
        own[dist.get_rank()] = torch.cat([counts[:, None], mean], 1)
        packed = torch.cat([scatter.reshape(-1), own.reshape(-1)])
        dist.all_reduce(packed)
        scatter = packed[: scatter.numel()].view_as(scatter)
        per_rank = packed[scatter.numel() :].view_as(own)
        n, means = per_rank[..., 0], per_rank[..., 1:]
        counts = n.sum(0)
        mean = (n[..., None] * means).sum(0) / counts.clamp(min=1)[:, None]
        for r in range(ranks):
            _add_outer(scatter, n[r].sqrt()[:, None] * (means[r] - mean))
        return counts, mean, scatter


def _per_class(value: Tensor, like: Tensor) -> Tensor:
    return value.view(-1, *[1] * (like.dim() - 1))


def _add_outer(matrix: Tensor, vector: Tensor) -> None:
    """In place: add vector vector' per class, or its diagonal."""
    if matrix.dim() == 2:
        matrix.addcmul_(vector, vector)
    else:
        matrix.baddbmm_(vector[:, :, None], vector[:, None, :])
