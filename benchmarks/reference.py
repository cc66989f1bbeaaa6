"""The plain forms that the losses are held against: the formulas as one writes them first.

The forms of "public manner" are organised as public code organises them, pass for pass, because their cost is
the yardstick. The "literal" forms are the formulas symbol by symbol, with every index a dimension. All
of them work in any floating dtype. Nothing outside the benchmarks uses this module.

Shapes as in the library: N images, K classes, A channels, M pixels of an image, P pixels in all.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pixel_kl(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """PD in the public manner: pixels become rows (P, K), one softmax of each kind, mean over rows."""
    num_classes = student.shape[1]
    rows_s = student.permute(0, 2, 1).contiguous().view(-1, num_classes)
    rows_t = teacher.permute(0, 2, 1).contiguous().view(-1, num_classes)
    log_q, p = F.log_softmax(rows_s / tau, dim=1), F.softmax(rows_t / tau, dim=1)
    return tau**2 * F.kl_div(log_q, p, reduction="batchmean")


def upsampled_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum over pixels of the cross-entropy of logits (N, K, h, w) resized to labels (N, H, W)."""
    scores = F.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(scores, labels, reduction="sum")


def channel_kl(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """CWD in the public manner: two softmaxes over pixels, then a logarithm of the student's."""
    n, k, _ = student.shape
    q, p = F.softmax(student / tau, dim=2), F.softmax(teacher / tau, dim=2)
    return tau**2 * F.kl_div(q.log(), p, reduction="sum") / (n * k)


def channel_kl_log_softmax(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """CWD as other public code has it: with log-softmaxes, on rows (N K, M)."""
    n, k, m = student.shape
    p = F.softmax(teacher.view(-1, m) / tau, dim=1)
    log_p = F.log_softmax(teacher.view(-1, m) / tau, dim=1)
    return tau**2 * torch.sum(p * log_p - p * F.log_softmax(student.view(-1, m) / tau, dim=1)) / (n * k)


def log_softmax_kl(student: Tensor, teacher: Tensor, tau: float, dim: int) -> Tensor:
    """Either loss in the fewest words, as one would give it to a compiler."""
    log_q, log_p = (student / tau).log_softmax(dim), (teacher / tau).log_softmax(dim)
    count = student.numel() / student.shape[dim] if dim == 1 else student.shape[0] * student.shape[1]
    return tau**2 * (log_p.exp() * (log_p - log_q)).sum() / count


def augmented_pixel_kl(student: Tensor, teacher: Tensor, table: Tensor) -> Tensor:
    """Eq. 8 literally, less the teacher's entropy: every (pixel, c, k); table g (K, K). Mean over pixels."""
    z, p, log_p = student, teacher.softmax(1), teacher.log_softmax(1)
    exponent = z[:, None] - z[:, :, None] + table[None, :, :, None]  # (N, c, k, M)
    per_class = exponent.logsumexp(2)
    return (p * (per_class + log_p)).sum() / (z.shape[0] * z.shape[2])


def augmented_channel_kl(
    student: Tensor, teacher: Tensor, table: Tensor, labels: Tensor, tau: float
) -> Tensor:
    """Eq. 7 literally (corrected), less the teacher's entropy: every (channel, i, k); table v (K, K)."""
    n, num_classes, _ = student.shape
    z, p, log_p = student / tau, (teacher / tau).softmax(2), (teacher / tau).log_softmax(2)
    v = torch.stack([table[:, y] for y in labels])  # (N, K, M)
    exponent = z[:, :, None] - z[..., None] + v[:, :, None] + v[..., None]  # (N, K, i, k)
    per_pixel = exponent.logsumexp(3)
    return tau**2 * (p * (per_pixel + log_p)).sum() / (n * num_classes)


def margin_variance_per_row(weight: Tensor, covariance: Tensor, labels: Tensor) -> Tensor:
    """(w_k - w_y)' Sigma_y (w_k - w_y) in ISDA's manner: a (K, A) difference and an (A, A) matrix per row.

    Args:
        weight: (K, A).
        covariance: (K, A, A).
        labels: (R,) classes, one per pixel, or one per class for the table of all of them.

    Returns:
        (R, K).
    """
    r, (k, a) = labels.numel(), weight.shape
    rivals = weight.expand(r, k, a)
    own = rivals.gather(1, labels.view(r, 1, 1).expand(r, k, a))
    difference = rivals - own
    sigma = covariance[labels]
    product = torch.bmm(torch.bmm(difference, sigma), difference.permute(0, 2, 1))  # (R, K, K)
    return product.mul(torch.eye(k, dtype=weight.dtype).expand(r, k, k)).sum(2)


class Estimator:
    """ISDA's running mean and covariance, in its manner: every pixel is written once per class (P, K, A)."""

    def __init__(self, num_classes: int, channels: int, diagonal: bool = False) -> None:
        self.diagonal = diagonal
        shape = (num_classes, channels) if diagonal else (num_classes, channels, channels)
        self.covariance = torch.zeros(shape)
        self.mean = torch.zeros(num_classes, channels)
        self.amount = torch.zeros(num_classes)

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Take in features (P, A) with labels (P,)."""
        (p, a), k = features.shape, self.mean.shape[0]
        spread = features.view(p, 1, a).expand(p, k, a)
        member = torch.zeros(p, k).scatter_(1, labels.view(-1, 1), 1).view(p, k, 1).expand(p, k, a)
        sorted_features = spread.mul(member)
        amount = member.sum(0)
        divisor = amount.clamp(min=1)
        mean = sorted_features.sum(0) / divisor
        deviation = sorted_features - mean.expand(p, k, a).mul(member)
        old, new = self.amount.view(k, 1).expand(k, a), amount
        share = torch.nan_to_num(new / (new + old), nan=0.0)
        step = self.mean - mean
        if self.diagonal:
            variance = deviation.pow(2).sum(0) / divisor
            extra = share.mul(1 - share).mul(step.pow(2))
            share_c = share
        else:
            variance = torch.bmm(deviation.permute(1, 2, 0), deviation.permute(1, 0, 2))
            variance = variance / divisor.view(k, a, 1).expand(k, a, a)
            share_c = share.view(k, a, 1).expand(k, a, a)
            extra = share_c.mul(1 - share_c).mul(torch.bmm(step.view(k, a, 1), step.view(k, 1, a)))
        self.covariance = self.covariance.mul(1 - share_c) + variance.mul(share_c) + extra
        self.mean = self.mean.mul(1 - share) + mean.mul(share)
        self.amount = self.amount + amount[:, 0]


def class_covariance(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Mean (K, A) and population covariance (K, A, A) of all pixels (P, A) at once, class by class."""
    a = features.shape[1]
    means, covariances = features.new_zeros(num_classes, a), features.new_zeros(num_classes, a, a)
    for c in labels.unique():
        x = features[labels == c]
        means[c] = x.mean(0)
        covariances[c] = (x - means[c]).T @ (x - means[c]) / len(x)
    return means, covariances
