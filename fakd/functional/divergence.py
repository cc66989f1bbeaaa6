"""KL divergence between two softmaxes: over classes (PD) or over pixels (CWD), optionally shifted.

Both losses of the paper, and the separable form of its augmented ones, are one computation: a
softmax of the teacher, a softmax of the student plus an offset that depends on the channel and
the pixel's label only, and their divergence. It is done block by block with the gradient computed in
the same pass, so only the gradient is kept. Lower bound: one read of both logits and one write of
the gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Elements of a block on the CPU: its few temporaries stay in the cache. Other devices get the
# whole batch as one block, since there launches cost more than memory.
CPU_BLOCK = 1 << 16

# Stands for -inf in masked positions: exp() of it is 0, yet differences of two of them are finite.
MASKED = -1e30

# How often sum_i P_i v_i is added to the divergence of the shifted student (see softmax_kl).
FORMS = {"shift": 0, "tight": 1, "bound": 2}


@dataclass(frozen=True)
class Offset:
    """v[c, i] = table[c, labels[i]], added to the student's scores over tau.

    Attributes:
        table: (K, L) offsets by channel and label. Gradients reach it.
        labels: (N, M) int64 in [0, L).
        form: "shift", "tight" or "bound", see :func:`softmax_kl`.
    """

    table: Tensor
    labels: Tensor
    form: str = "shift"


def softmax_kl(
    student: Tensor,
    teacher: Tensor,
    tau: float,
    over: str,
    valid: Tensor | None = None,
    offset: Offset | None = None,
) -> Tensor:
    """Sum of KL(P || Q) over all softmaxes, P of the teacher and Q of the student.

    With z the student's logits, P = softmax(teacher / tau) and Q = softmax(z / tau + v):

    * ``shift``: KL(P || Q), zero when the shifted student equals the teacher;
    * ``tight``: ``LSE(z / tau + v) - sum P z / tau`` minus the entropy of P;
    * ``bound``: the same plus ``sum P v``, the separable form of FAKD's Eq. 7.

    Args:
        student: (N, K, M) logits. Gradients reach it.
        teacher: (N, K, M) logits. Never gets a gradient.
        tau: temperature.
        over: "classes" for a softmax per pixel, "pixels" for one per image and channel.
        valid: (N, M) bool, pixels that take part, or None for all. Over classes the others are
            left out of the sum; over pixels they get no mass in either softmax.
        offset: v, or None for 0.

    Returns:
        Scalar, not averaged and without the factor tau^2.
    """
    table, labels, extra = None, None, 0
    if offset is not None:
        table, labels, extra = offset.table, offset.labels, FORMS[offset.form]
    return _SoftmaxKL.apply(student, teacher, table, labels, valid, tau, over, extra)


def pixel_kl(student: Tensor, teacher: Tensor, tau: float = 1.0, valid: Tensor | None = None) -> Tensor:
    """tau^2 times the mean over pixels of KL over classes; (N, K, M) logits, (N, M) mask."""
    count = student.shape[0] * student.shape[2] if valid is None else valid.sum().clamp(min=1)
    return tau**2 * softmax_kl(student, teacher, tau, "classes", valid) / count


def channel_kl(student: Tensor, teacher: Tensor, tau: float = 1.0, valid: Tensor | None = None) -> Tensor:
    """tau^2 times the mean over images and channels of KL over pixels; (N, K, M) logits, (N, M) mask."""
    count = student.shape[0] * student.shape[1]
    return tau**2 * softmax_kl(student, teacher, tau, "pixels", valid) / count


def blocks(shape: torch.Size, device: torch.device, over: str) -> Iterator[tuple[slice, slice, slice]]:
    """Slices of (N, K, M) that hold whole softmaxes and, on the CPU, about CPU_BLOCK elements."""
    n, k, m = shape
    if device.type != "cpu":
        yield slice(0, n), slice(0, k), slice(0, m)
        return
    step_k, step_m = (k, max(1, CPU_BLOCK // k)) if over == "classes" else (max(1, CPU_BLOCK // m), m)
    step_n = max(1, CPU_BLOCK // (k * m))
    for i in range(0, n, step_n):
        for c in range(0, k, step_k):
            for j in range(0, m, step_m):
                yield slice(i, i + step_n), slice(c, c + step_k), slice(j, j + step_m)


class _SoftmaxKL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        teacher: Tensor,
        table: Tensor | None,
        labels: Tensor | None,
        valid: Tensor | None,
        tau: float,
        over: str,
        extra: int,
    ) -> Tensor:
        dim = 1 if over == "classes" else 2
        total = torch.zeros((), dtype=torch.float64, device=student.device)
        grad = torch.empty_like(student) if ctx.needs_input_grad[0] else None  # (N, K, M)
        grad_table = None  # (K, L)
        if table is not None and ctx.needs_input_grad[2]:
            grad_table = torch.zeros_like(table)
        for ns, ks, ms in blocks(student.shape, student.device, over):  # n images, k channels, m pixels
            z = student[ns, ks, ms] / tau  # (n, k, m)   z^S / tau
            t = teacher[ns, ks, ms] / tau  # (n, k, m)   z^T / tau
            v = y = None
            if table is not None and labels is not None:
                y = labels[ns, ms].reshape(-1)  # (n m,)
                v = table[ks].index_select(1, y)  # (k, n m)   v_ci = table[c, y_i]
                v = v.view(z.shape[1], z.shape[0], z.shape[2]).transpose(0, 1)  # (n, k, m)
                z += v  # the student's score is z^S / tau + v
            weight = None if valid is None else valid[ns, None, ms]  # (n, 1, m)
            if weight is not None and over == "pixels":
                z.masked_fill_(~weight, MASKED)
                t.masked_fill_(~weight, MASKED)
            log_p = torch.log_softmax(t, dim)  # (n, k, m)
            p = log_p.exp()  # (n, k, m)   P
            log_q = torch.log_softmax(z, dim)  # (n, k, m)
            log_p -= log_q  # (n, k, m)   log P - log Q
            if weight is not None and over == "classes":
                log_p *= weight
            total += torch.dot(p.view(-1), log_p.view(-1))  # ()   sum P (log P - log Q)
            if v is not None and extra:
                pv = p * v  # (n, k, m)
                if weight is not None:
                    pv *= weight
                total += extra * pv.sum()
            if grad is None and grad_table is None:
                continue
            difference = log_q.exp_().sub_(p)  # (n, k, m)   Q - P = tau dKL/dz^S = dKL/dv
            if weight is not None:
                p *= weight  # over pixels as well: without a single one, P is uniform
                if over == "classes":
                    difference *= weight
            if grad is not None:
                grad[ns, ks, ms] = difference
            if grad_table is not None and y is not None:
                difference.add_(p, alpha=extra)  # (n, k, m)   Q - P + extra P
                by_pixel = difference.transpose(0, 1).reshape(z.shape[1], -1)  # (k, n m)
                grad_table[ks].index_add_(1, y, by_pixel)  # (k, L)   summed over the pixels of a label
        ctx.tau = tau
        ctx.save_for_backward(grad, grad_table)
        return total.to(student.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        grad, grad_table = ctx.saved_tensors
        return (
            None if grad is None else grad * (g / ctx.tau),
            None,
            None if grad_table is None else grad_table * g,
            *[None] * 5,
        )
