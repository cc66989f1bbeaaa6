"""The formulas as the papers state them, literally: loops over pixels, or big tensors, in float64.

Nothing here imports the package: it is what the package is held against. Shapes: student and teacher
logits z, t (N, C, h, w), feature s (N, A, h, w), weight (C, A), covariance (C, A, A), labels (N, h, w) in
[0, C) or anything else for void, whose augmentation is nothing.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

VOID = 255


def field(n: int, c: int, h: int, w: int, a: float) -> Tensor:
    """(n, c, h, w) deterministic numbers, a sin(0.7 n + 1.3 c + 0.9 h + 0.5 w + 0.11 c h w + a)."""
    axes = [torch.arange(size, dtype=torch.float64) for size in (n, c, h, w)]
    n_, c_, h_, w_ = torch.meshgrid(*axes, indexing="ij")
    return a * torch.sin(0.7 * n_ + 1.3 * c_ + 0.9 * h_ + 0.5 * w_ + 0.11 * c_ * h_ * w_ + a)


class Golden(NamedTuple):
    """S and T for the plain losses; the rest for the augmented ones, whose logits are W s + b."""

    student: Tensor
    teacher: Tensor
    feature: Tensor
    weight: Tensor
    bias: Tensor
    logits: Tensor
    labels: Tensor
    valid: Tensor


def golden_inputs() -> Golden:
    feature = field(2, 6, 4, 5, 1.5)
    c, a = torch.meshgrid(torch.arange(3.0), torch.arange(6.0), indexing="ij")
    weight = torch.cos(c.double() + 2 * a.double())
    bias = 0.1 * torch.arange(3, dtype=torch.float64)
    logits = torch.einsum("ca,nahw->nchw", weight, feature) + bias[:, None, None]
    n, h, w = torch.meshgrid(torch.arange(2), torch.arange(4), torch.arange(5), indexing="ij")
    labels = (n + h + w // 2) % 3
    labels[0, 0, 0] = labels[1, 3, 4] = VOID
    student, teacher = field(2, 3, 4, 5, 2.0), field(2, 3, 4, 5, 3.0)
    return Golden(student, teacher, feature, weight, bias, logits, labels, labels != VOID)


def softmax(x: list[float]) -> list[float]:
    total = math.fsum(math.exp(v - max(x)) for v in x)
    return [math.exp(v - max(x)) / total for v in x]


def log_sum_exp(x: list[float]) -> float:
    return max(x) + math.log(math.fsum(math.exp(v - max(x)) for v in x))


def kl(p_scores: list[float], q_scores: list[float]) -> float:
    p, q = softmax(p_scores), softmax(q_scores)
    return math.fsum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0)


def entropy(scores: list[float]) -> float:
    return -math.fsum(p * math.log(p) for p in softmax(scores))


def pd(z: Tensor, t: Tensor, tau: float, valid: Tensor | None = None) -> float:
    """Eq. 1 with the entropy taken off: mean over the pixels of KL over classes, times tau^2."""
    rows_z, rows_t = z.movedim(1, -1).flatten(0, 2), t.movedim(1, -1).flatten(0, 2)
    keep = [True] * len(rows_z) if valid is None else valid.flatten().tolist()
    values = [
        kl((b / tau).tolist(), (a / tau).tolist()) for a, b, k in zip(rows_z, rows_t, keep, strict=True) if k
    ]
    return tau**2 * math.fsum(values) / len(values)


def cwd(z: Tensor, t: Tensor, tau: float, valid: Tensor | None = None) -> float:
    """Eq. 2 with the entropy taken off: mean over images and channels of KL over pixels, times tau^2."""
    values = []
    for n in range(z.shape[0]):
        keep = slice(None) if valid is None else valid[n].flatten()
        for c in range(z.shape[1]):
            a, b = z[n, c].flatten()[keep] / tau, t[n, c].flatten()[keep] / tau
            values.append(kl(b.tolist(), a.tolist()) if len(a) else 0.0)
    return tau**2 * math.fsum(values) / len(values)


def pixel_entropy(t: Tensor, tau: float) -> float:
    """What PD's cross-entropy form has more than its KL form."""
    rows = (t / tau).movedim(1, -1).flatten(0, 2).tolist()
    return tau**2 * math.fsum(map(entropy, rows)) / len(rows)


def channel_entropy(t: Tensor, tau: float) -> float:
    """What CWD's cross-entropy form has more than its KL form."""
    rows = (t / tau).flatten(2).flatten(0, 1).tolist()
    return tau**2 * math.fsum(map(entropy, rows)) / len(rows)


def class_statistics(feature: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Counts, means and population covariances of the pixels of each class; zeros without pixels."""
    pixels, y = feature.movedim(1, -1).flatten(0, -2), labels.flatten()
    channels = pixels.shape[1]
    count = torch.zeros(num_classes, dtype=torch.int64)
    mean = pixels.new_zeros(num_classes, channels)
    covariance = pixels.new_zeros(num_classes, channels, channels)
    for c in range(num_classes):
        x = pixels[y == c]
        count[c] = len(x)
        if len(x):
            mean[c] = x.mean(0)
            covariance[c] = sum(torch.outer(v, v) for v in x - mean[c]) / len(x)
    return count, mean, covariance


def variance_of_logit(weight: Tensor, covariance: Tensor) -> Tensor:
    """q[c, y] = w_c' Sigma_y w_c, one number at a time."""
    size = len(weight)
    q = [[(weight[c] @ covariance[y] @ weight[c]).item() for y in range(size)] for c in range(size)]
    return torch.tensor(q, dtype=torch.float64)


def variance_of_margin(weight: Tensor, covariance: Tensor, of: int) -> Tensor:
    """(w_k - w_c)' Sigma_of (w_k - w_c) as [c, k], one number at a time."""
    size = len(weight)

    def entry(c: int, k: int) -> float:
        d = weight[k] - weight[c]
        return (d @ covariance[of] @ d).item()

    return torch.tensor([[entry(c, k) for k in range(size)] for c in range(size)], dtype=torch.float64)


def fakd_channel(
    z: Tensor,
    t: Tensor,
    q: Tensor,
    labels: Tensor,
    tau: float,
    lambda_: float,
    own: float = 1.0,
    variance_over: float | None = None,
    sign: float = 1.0,
    upto: int | None = None,
    same_pixel: bool = True,
) -> float:
    """Eq. 7 in its cross-entropy form, pixel by pixel against pixel, O(M^2) per image and channel.

        tau^2 / (N C) sum_c sum_i P_ci log sum_k exp( (z_ck - z_ci) / tau + v_ck + own v_ci )

    Args:
        z, t, labels, tau, lambda_: as in the module's docstring.
        q: (C, C) or, for the offset by margin, any table [channel, label].
        own: 1 for the bound, 0 for the tight form, -1 for augmented logits.
        variance_over: 2 tau^2 if None; the equation is printed with 2 tau.
        sign: -1 for the printed sign of s_i - s_k.
        upto: number of pixels the inner sum runs over; C as printed, M if None.
        same_pixel: False gives the pair k = i no variance, the exact moment.
    """
    over = 2 * tau**2 if variance_over is None else variance_over
    total = 0.0
    for n in range(z.shape[0]):
        y = labels[n].flatten().tolist()
        for c in range(z.shape[1]):
            a, p = z[n, c].flatten().tolist(), softmax((t[n, c].flatten() / tau).tolist())
            v = [lambda_ * q[c, label].item() / over if label < q.shape[1] else 0.0 for label in y]
            for i in range(len(a)):
                exponents = []
                for k in range(len(a) if upto is None else upto):
                    shift = v[k] + own * v[i] if same_pixel or k != i else 0.0
                    exponents.append(sign * (a[k] - a[i]) / tau + shift)
                total += p[i] * log_sum_exp(exponents)
    return tau**2 * total / (z.shape[0] * z.shape[1])


def fakd_pixel(
    z: Tensor,
    t: Tensor,
    weight: Tensor,
    covariance: Tensor,
    labels: Tensor,
    tau: float,
    lambda_: float,
    of: str = "class",
    valid: Tensor | None = None,
) -> float:
    """Eq. 8 in its cross-entropy form with a tensor pixel x class c x class k.

    Args:
        of: whose covariance, the summed "class" c's or the pixel's "label"'s.
        valid: pixels of the mean, all if None.
    """
    size, count = len(weight), labels.numel()
    difference = weight[None, :] - weight[:, None]  # [c, k] = w_k - w_c
    y = labels.flatten()
    known = y < size
    if of == "class":
        table = torch.einsum("cka,cab,ckb->ck", difference, covariance, difference).expand(count, size, size)
    else:
        table = torch.einsum("cka,iab,ckb->ick", difference, covariance[y.where(known, 0)], difference)
    scores, teacher = z.movedim(1, -1).flatten(0, 2), t.movedim(1, -1).flatten(0, 2)
    exponents = (scores[:, None, :] - scores[:, :, None]) / tau
    exponents = exponents + lambda_ / (2 * tau**2) * table * known[:, None, None]
    values = ((teacher / tau).softmax(1) * exponents.logsumexp(2)).sum(1)
    return (tau**2 * (values.mean() if valid is None else values[valid.flatten()].mean())).item()


def fakd_pixel_by_offset(
    z: Tensor, t: Tensor, q: Tensor, labels: Tensor, tau: float, lambda_: float, own: float
) -> float:
    """Eq. 8's other two forms in cross-entropy form: the pixel's scores are raised by v_k, its label's.

    Args:
        q: [class, label].
        own: 0 for the tight form, -1 for augmented logits.
    """
    total, rows = 0.0, z.movedim(1, -1).flatten(0, 2).tolist()
    teacher = (t / tau).movedim(1, -1).flatten(0, 2).tolist()
    for scores, other, y in zip(rows, teacher, labels.flatten().tolist(), strict=True):
        v = [lambda_ * q[k, y].item() / (2 * tau**2) if y < q.shape[1] else 0.0 for k in range(len(scores))]
        lse = log_sum_exp([s / tau + o for s, o in zip(scores, v, strict=True)])
        p = softmax(other)
        total += lse - math.fsum(p[c] * (scores[c] / tau - own * v[c]) for c in range(len(scores)))
    return tau**2 * total / len(rows)


def isda_cross_entropy(
    z: Tensor, weight: Tensor, covariance: Tensor, labels: Tensor, lambda_: float
) -> float:
    """ISDA's loss: cross-entropy of z_k + (lambda / 2) (w_k - w_y)' Sigma_y (w_k - w_y), mean over pixels."""
    rows, total = z.movedim(1, -1).flatten(0, 2), 0.0
    for scores, y in zip(rows, labels.flatten().tolist(), strict=True):
        d = weight - weight[y]
        augmented = scores + lambda_ / 2 * torch.stack([v @ covariance[y] @ v for v in d])
        total += log_sum_exp(augmented.tolist()) - augmented[y].item()
    return total / len(rows)


def augmentation_draws(covariance: Tensor, labels: Tensor, lambda_: float, draws: int, seed: int) -> Tensor:
    """(draws, M, A) noise of N(0, lambda Sigma_y), independent from pixel to pixel."""
    generator = torch.Generator().manual_seed(seed)
    factors = torch.linalg.cholesky(covariance)[labels]
    noise = torch.randn(draws, *factors.shape[:2], generator=generator, dtype=torch.float64)
    return math.sqrt(lambda_) * torch.einsum("mab,dmb->dma", factors, noise)


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean over draws and its standard error."""
    return values.mean().item(), values.std().item() / math.sqrt(len(values))
