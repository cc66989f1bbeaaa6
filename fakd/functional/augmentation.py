"""FAKD's infinitely many augmentations in closed form (Yuan et al. 2022, Eqs. 7 and 8).

A pixel's feature s_i is replaced by s_i + e_i with e_i ~ N(0, lambda Sigma_y), y its class. The
expected loss is bounded by E log X <= log E X and E exp(a.e) = exp(a.Cov a / 2). What remains
depends on a pixel through its label only, so it is a small table:

    logit_variance   q[c, y] = w_c' Sigma_y w_c                       variance of logit c in class y
    margin_variance  D[c, k] = (w_k - w_c)' Sigma_c (w_k - w_c)       variance of z_k - z_c in class c

No tensor has an entry per pixel, class and channel. Lower bound of a table: one read of the
K covariances.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .divergence import blocks
from .segments import PACKED_ROW, pack_by_class

# Up to here exp(-g) is far from underflow in float32, and the matrix form below is exact to rounding.
SAFE_EXPONENT = 64.0
CHUNK = 16  # classes whose products are computed at once, few enough to stay in the cache

# _product_block or _exact_block
_Block = Callable[[Tensor, Tensor, Tensor, "Tensor | None", bool], "tuple[Tensor, Tensor, Tensor | None]"]


def logit_variance(weight: Tensor, covariance: Tensor) -> Tensor:
    """q[c, y] = w_c' Sigma_y w_c, the variance of logit c over the features of class y.

    Args:
        weight: (K, A) classifier weight. Gradients reach it.
        covariance: (K, A, A) full or (K, A) diagonal, constant.

    Returns:
        (K, K), never negative.
    """
    return _QuadraticTables.apply(weight, covariance, False)


def margin_variance(weight: Tensor, covariance: Tensor) -> Tensor:
    """D[c, k] = (w_k - w_c)' Sigma_c (w_k - w_c), with zeros on the diagonal.

    Args and returns as :func:`logit_variance`.
    """
    return _QuadraticTables.apply(weight, covariance, True)


def margin_variance_by_label(weight: Tensor, covariance: Tensor) -> Tensor:
    """D[y, c, k] = (w_k - w_c)' Sigma_y (w_k - w_c) for every class y.

    Args:
        weight: (K, A). Gradients reach it.
        covariance: (K, A, A) or (K, A).

    Returns:
        (K, K, K).
    """
    if covariance.dim() == 2:
        cross = (weight * covariance[:, None]) @ weight.T
    else:
        cross = weight @ covariance @ weight.T
    own = cross.diagonal(dim1=1, dim2=2)
    return (own[:, :, None] - cross - cross.transpose(1, 2) + own[:, None, :]).clamp_min(0)


class _QuadraticTables(torch.autograd.Function):
    """Either table from the products Sigma_y w_c, which are also all its gradient needs.

    Lower bound: read the covariances, K^2 A^2 multiply-adds. A few classes at a time, so that a product
    that is not kept reuses memory.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, covariance: Tensor, margin: bool) -> Tensor:
        w = weight.detach().to(covariance.dtype)  # (K, A)
        products, rows = [], []
        for sigma, own in zip(covariance.split(CHUNK), w.split(CHUNK), strict=True):  # b classes y at once
            # sigma: (b, A, A) or (b, A). The difference comes first, so that w_k close to w_y does not
            # cancel in the square.
            factor = w - own[:, None] if margin else w  # (b, K, A) w_k - w_y, or (K, A) w_k
            product = factor * sigma[:, None] if sigma.dim() == 2 else factor @ sigma  # (b, K, A)
            rows.append((product * factor).sum(2))  # (b, K)   f' Sigma_y f
            if ctx.needs_input_grad[0]:
                products.append(product)
        ctx.margin = margin
        ctx.save_for_backward(*products)
        table = torch.cat(rows).clamp_(min=0).to(weight.dtype)  # (K, K)   [y, k]
        return table if margin else table.T  # D[y, k], or q[k, y]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        products = ctx.saved_tensors  # (b, K, A) each
        slopes = 2 * (g if ctx.margin else g.T).to(products[0].dtype)  # (K, K)   [y, k]
        grad, own = torch.zeros_like(products[0][0]), []  # (K, A)
        for product, slope in zip(products, slopes.split(CHUNK), strict=True):
            weighted = product * slope[:, :, None]  # (b, K, A)
            grad += weighted.sum(0)  # (K, A)   into every w_k
            own.append(weighted.sum(1))  # (b, A)   into w_y
        if ctx.margin:
            grad -= torch.cat(own)
        return grad.to(g.dtype), None, None


def augmented_pixel_kl(
    student: Tensor,
    teacher: Tensor,
    table: Tensor,
    labels: Tensor,
    tau: float = 1.0,
    valid: Tensor | None = None,
) -> Tensor:
    """Sum over pixels of FAKD's augmented PD, Eq. 8, less the teacher's entropy.

        sum_i sum_c p_ic [ LSE_k( z_ik / tau + g[c, k] ) - z_ic / tau ]

    Args:
        student: (N, K, M) logits. Gradients reach it.
        teacher: (N, K, M) logits.
        table: g = (lambda / 2 tau^2) D >= 0 with a zero diagonal: (K, K) with the covariance of the
            summed class c, as Eq. 8 prints it, or (K, K, K) whose first index is the pixel's label.
            Gradients reach it.
        labels: (N, M) int64; K marks a pixel without a class, for which g is 0.
        tau: temperature.
        valid: (N, M) bool, pixels that are summed, or None for all.

    Returns:
        Scalar, not averaged and without tau^2.
    """
    num_classes = student.shape[1]
    if table.dim() == 2:
        return _AugmentedPixelKL.apply(student, teacher, table[None], labels < num_classes, valid, tau)
    # Rows of pixels of one class each take the place of images, each with the table of its class.
    index, row_class = pack_by_class(labels.reshape(-1), num_classes + 1, PACKED_ROW)
    table = torch.cat([table, table.new_zeros(1, num_classes, num_classes)])[row_class]
    if valid is None:
        valid = torch.ones_like(labels, dtype=torch.bool)
    valid = _take(valid[:, None], index)[:, 0]
    return _AugmentedPixelKL.apply(_take(student, index), _take(teacher, index), table, None, valid, tau)


def _take(maps: Tensor, index: Tensor) -> Tensor:
    """(N, C, M) maps to (R, C, b) by (R, b) positions in N * M, of which N * M itself gives zeros."""
    flat = maps.transpose(0, 1).flatten(1)
    flat = torch.cat([flat, flat.new_zeros(flat.shape[0], 1)], 1)
    return flat[:, index].transpose(0, 1)


class _AugmentedPixelKL(torch.autograd.Function):
    """Per image one table of offsets (or one for all); pixels that are not ``seen`` have none."""

    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        teacher: Tensor,
        table: Tensor,
        seen: Tensor | None,
        valid: Tensor | None,
        tau: float,
    ) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=student.device)
        grad = torch.empty_like(student) if ctx.needs_input_grad[0] else None  # (N, K, M)
        grad_table = torch.zeros_like(table) if ctx.needs_input_grad[2] else None  # as table
        g, block = _safe_form(table.detach())  # (N or 1, K, K)
        for ns, _, ms in blocks(student.shape, student.device, "classes"):  # n images, m pixels
            own = ns if table.shape[0] > 1 else slice(0, 1)
            z, t = student[ns, :, ms] / tau, teacher[ns, :, ms] / tau  # (n, K, m)   z / tau
            log_p = torch.log_softmax(t, 1)  # (n, K, m)
            p = log_p.exp()  # (n, K, m)   p_ic
            if valid is not None:
                p *= valid[ns, None, ms]
            here = None if seen is None else seen[ns, None, ms]  # (n, 1, m)
            # LSE_k(z_ik / tau + g_ck) (n, K, m), its slopes in z (n, K, m) and in g (n, K, K)
            lse, slope, slope_table = block(
                z.to(g.dtype), p.to(g.dtype), g[own], here, grad_table is not None
            )
            total += (p * (lse - z + log_p)).sum()  # ()
            if grad is not None:
                grad[ns, :, ms] = slope - p
            if grad_table is not None and slope_table is not None:
                grad_table[own] += slope_table.sum(0, keepdim=True) if own.stop == 1 else slope_table
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
            None,
            None,
            None,
        )


def _safe_form(g: Tensor) -> tuple[Tensor, _Block]:
    """The offsets in the dtype to compute in, and the function for a block that does not underflow."""
    if g.device.type != "cpu":
        return g.double(), _product_block  # reading the values would synchronise with the host
    exact = g.numel() > 0 and bool(g.max() >= SAFE_EXPONENT)
    return g, _exact_block if exact else _product_block


def _product_block(
    z: Tensor, p: Tensor, g: Tensor, seen: Tensor | None, needs_table: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """LSE_k(z_k + g_ck) as one matrix product of exponentials, with its slopes.

    The product cannot fall below exp(-max g), because the largest z_k enters every sum.

    Args:
        z, p: (B, K, m) scores and teacher's probabilities.
        g: (B or 1, K, K) offsets.
        seen: (B, 1, m) bool or None.

    Returns:
        lse (B, K, m); sum_c p_c dlse_c/dz_k (B, K, m); sum_i p_ic dlse_ic/dg_ck (B, K, K) or None.
    """
    z_max, g_max = z.amax(1, keepdim=True), g.amax(2, keepdim=True)  # (B, 1, m), (B, K, 1)
    e, table = (z - z_max).exp(), (g - g_max).exp()  # (B, K, m) exp z_k, (B, K, K) exp g_ck
    sums = torch.matmul(table, e).clamp_min(torch.finfo(e.dtype).tiny)  # (B, K, m)   sum_k exp(z_k + g_ck)
    plain = e.sum(1, keepdim=True)  # (B, 1, m)   the same for g = 0
    lse = sums.log() + g_max  # (B, K, m)
    ratio = p / sums  # (B, K, m)   p_c / sum_k exp(z_k + g_ck)
    if seen is None:
        spread = torch.matmul(table.transpose(1, 2), ratio)  # (B, K, m)   sum_c exp(g_ck) ratio_c
    else:
        lse = torch.where(seen, lse, plain.log())
        ratio = ratio * seen
        spread = torch.where(seen, torch.matmul(table.transpose(1, 2), ratio), p.sum(1, keepdim=True) / plain)
    slope_table = table * torch.matmul(ratio, e.transpose(1, 2)) if needs_table else None  # (B, K, K)
    return lse + z_max, e * spread, slope_table


def _exact_block(
    z: Tensor, p: Tensor, g: Tensor, seen: Tensor | None, needs_table: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """As :func:`_product_block` for offsets of any size, one class c at a time."""
    lse, slope = torch.empty_like(z), torch.zeros_like(z)  # (B, K, m)
    slope_table = z.new_zeros(z.shape[0], *g.shape[1:]) if needs_table else None  # (B, K, K)
    for c in range(g.shape[1]):
        offset = g[:, c, :, None] if seen is None else g[:, c, :, None] * seen  # (B, K, 1 or m)   g_ck
        shifted = z + offset  # (B, K, m)   z_k + g_ck
        lse[:, c] = shifted.logsumexp(1)  # (B, m)
        share = p[:, c, None] * (shifted - lse[:, c, None]).exp()  # (B, K, m)   p_c softmax_k(z_k + g_ck)
        slope += share
        if slope_table is not None:
            slope_table[:, c] = (share if seen is None else share * seen).sum(2)  # (B, K)
    return lse, slope, slope_table
