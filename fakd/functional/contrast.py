"""KL divergence between the student's and the teacher's similarities of pixels, in tiles.

Similarities are dot products of unit vectors over tau, so they lie in [-1/tau, 1/tau] and their exponentials
need no maximum taken off: a softmax is an exponential and a sum. A first pass over the tiles accumulates the
sums of every row, a second one computes the gradient, and no tile is kept. With e = exp(similarity) and
Z its sum over a row,

    KL = sum_k e^T_k (l^T_k - l^S_k) / Z^T + log Z^S - log Z^T        l: similarities over tau
    dKL / dl^S = e^S / Z^S - e^T / Z^T

Lower bound: a similarity matrix of each network and one or two for the gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .relation import unit_vectors

# Entries of a tile. On the CPU its temporaries stay in the cache; elsewhere launches cost more than memory.
CPU_TILE = 1 << 18
TILE = 1 << 24

# Below it exp(2 / tau) times a few thousand pixels leaves the range of float32.
LEAST_TAU = 0.02


def unit_rows(feature: Tensor) -> Tensor:
    """(N, A, h, w) to (N, M, A) vectors of length one; zeros stay zeros, without gradient."""
    return unit_vectors(feature.flatten(2).transpose(1, 2), 2)


def pairwise_kl(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """Sum over ordered pairs of images (i, j) and pixels r of i of the KL over the pixels of j.

        sum_ij sum_r KL( softmax_k(t_ir . t_jk / tau) || softmax_k(s_ir . s_jk / tau) )

    The similarities of (j, i) are those of (i, j) transposed, so each tile is computed once for both: its
    rows are softmaxes of one pair, its columns of the other.

    Args:
        student: (N, M, A) unit vectors. Gradients reach them.
        teacher: (N, M, A') unit vectors.
        tau: temperature, at least LEAST_TAU.

    Returns:
        Scalar, not averaged.
    """
    return _PairwiseKL.apply(student, teacher, tau)


def contrast_kl(
    student: Tensor,
    teacher: Tensor,
    keys: Tensor,
    tau: float,
    weight: Tensor | None = None,
    key_weight: Tensor | None = None,
) -> Tensor:
    """Weighted sum over pixels of the KL over common keys.

        sum_r w_r KL( softmax_k(t_r . e_k / tau) || softmax_k(s_r . e_k / tau) )

    Args:
        student: (P, A) unit vectors. Gradients reach them.
        teacher: (P, A) unit vectors.
        keys: (C, A) unit vectors, constant.
        tau: temperature, at least LEAST_TAU.
        weight: (P,) of the pixels, or None for ones.
        key_weight: (C,) 0 for keys that are left out of both softmaxes, or None.

    Returns:
        Scalar, not averaged.
    """
    return _ContrastKL.apply(student, teacher, keys, tau, weight, key_weight)


def _step(num_keys: int, device: torch.device) -> int:
    """Rows of a tile with so many columns."""
    return max(1, (CPU_TILE if device.type == "cpu" else TILE) // num_keys)


def _exponentials(s: Tensor, t: Tensor, s_keys: Tensor, t_keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """e^S, e^T and e^T (l^T - l^S) of a tile; the rows ``s`` and ``t`` are already divided by tau."""
    l_s, l_t = s @ s_keys.T, t @ t_keys.T  # (r, k)   of r rows and k keys: similarities over tau
    e_t = l_t.exp()  # (r, k)
    gap = l_t.sub_(l_s).mul_(e_t)  # (r, k)
    return l_s.exp_(), e_t, gap


class _Tile(NamedTuple):
    """Rows of image i against keys of image j >= i; ``own`` keys are the rows themselves."""

    rows: slice
    keys: slice
    i: int
    j: int
    own: int

    @property
    def others(self) -> slice:
        return slice(self.keys.start + self.own, self.keys.stop)


def _tiles(n: int, m: int, step: int) -> Iterator[_Tile]:
    """The upper triangle of the (N M, N M) matrix of similarities."""
    for i in range(n):
        for start in range(i * m, (i + 1) * m, step):
            rows = slice(start, min(start + step, (i + 1) * m))
            yield _Tile(rows, slice(start, (i + 1) * m), i, i, rows.stop - start)
            for j in range(i + 1, n):
                yield _Tile(rows, slice(j * m, (j + 1) * m), i, j, 0)


class _PairwiseKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, tau: float) -> Tensor:
        n, m, _ = student.shape
        s, t = student.detach().flatten(0, 1), teacher.detach().flatten(0, 1)  # (N M, A), (N M, A')
        s_rows, t_rows = s / tau, t / tau  # (N M, A), (N M, A')
        step = _step(m, s.device)
        sums = s.new_zeros(3, n, n * m)  # of e^S, e^T and the gap: [image of the keys, row]
        for tile in _tiles(n, m, step):  # r rows of image i, k keys of image j
            # (r, k) each
            parts = _exponentials(s_rows[tile.rows], t_rows[tile.rows], s[tile.keys], t[tile.keys])
            for total, part in zip(sums, parts, strict=True):
                total[tile.j, tile.rows] += part.sum(1)  # (r,)   the softmaxes of (i, j)
                total[tile.i, tile.others] += part[:, tile.own :].sum(0)  # (k - own,)   those of (j, i)
        z_s, z_t, gap = sums  # (N, N M) each   Z^S, Z^T and sum_k e^T (l^T - l^S)
        value = (gap / z_t).sum(dtype=torch.float64) + (z_s / z_t).log().sum(dtype=torch.float64)  # ()
        grad = None
        if ctx.needs_input_grad[0]:
            grad = torch.zeros_like(s_rows)  # (N M, A)
            share_s, share_t = 1 / z_s, 1 / z_t  # (N, N M)
            for tile in _tiles(n, m, step):
                rows, keys = tile.rows, tile.keys
                e_s, e_t = (s_rows[rows] @ s[keys].T).exp_(), (t_rows[rows] @ t[keys].T).exp_()  # (r, k)
                e_s *= share_s[tile.j, rows, None] + share_s[tile.i, keys]  # e^S / Z^S of (i, j) and (j, i)
                e_t *= share_t[tile.j, rows, None] + share_t[tile.i, keys]  # e^T / Z^T of both
                e_s -= e_t  # (r, k)   dKL / dl^S
                grad[rows] += e_s @ s[keys]  # (r, A)
                grad[tile.others] += e_s[:, tile.own :].T @ s[rows]  # (k - own, A)
            grad = (grad / tau).view_as(student)  # (N, M, A)
        ctx.save_for_backward(grad)
        return value.to(student.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * g, None, None


class _ContrastKL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        teacher: Tensor,
        keys: Tensor,
        tau: float,
        weight: Tensor | None,
        key_weight: Tensor | None,
    ) -> Tensor:
        s, t = student.detach(), teacher.detach()  # (P, A)
        least = torch.finfo(s.dtype).tiny
        total = torch.zeros((), dtype=torch.float64, device=s.device)
        grad = torch.empty_like(s) if ctx.needs_input_grad[0] else None  # (P, A)
        step = _step(len(keys), s.device)
        for start in range(0, len(s), step):  # r pixels against all C keys
            rows = slice(start, start + step)
            e_s, e_t, gap = _exponentials(s[rows] / tau, t[rows] / tau, keys, keys)  # (r, C) each
            if key_weight is not None:
                for part in (e_s, e_t, gap):
                    part *= key_weight
            z_s, z_t = e_s.sum(1).clamp_min_(least), e_t.sum(1).clamp_min_(least)  # (r,)   Z^S, Z^T
            w = torch.ones_like(z_s) if weight is None else weight[rows]  # (r,)
            total += (w * (gap.sum(1) / z_t + (z_s / z_t).log())).sum()  # ()   sum_r w_r KL_r
            if grad is not None:
                e_s *= (w / z_s)[:, None]  # (r, C)   w e^S / Z^S
                e_s -= e_t.mul_((w / z_t)[:, None])  # (r, C)   w dKL / dl^S
                torch.mm(e_s, keys, out=grad[rows])  # (r, A)
        ctx.tau = tau
        ctx.save_for_backward(grad)
        return total.to(s.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = ctx.saved_tensors
        return (grad * (g / ctx.tau), *[None] * 5)
