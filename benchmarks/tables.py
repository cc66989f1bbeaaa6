"""Bars 8 to 11: the tables of variances and the running covariance beside ISDA's forms."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from fakd.functional.augmentation import logit_variance, margin_variance
from fakd.statistics import ClassCovariance

from . import reference
from .harness import Floor, check
from .report import Report, main

FLOAT = 4  # bytes


def weight_and_covariance(k: int, a: int) -> tuple[Tensor, Tensor]:
    """A classifier (K, A) and positive definite matrices (K, A, A)."""
    root = torch.randn(k, a, a) / a**0.5
    return torch.randn(k, a), root @ root.transpose(1, 2)


def tables(report: Report) -> None:
    """Bar 8: D[c, k], one row per class in ISDA's manner, and the table q beside it."""
    k, a = report.shape(150, 512)
    weight, covariance = weight_and_covariance(k, a)
    # Positive, so that the sum does not cancel: a sum near zero has no relative error worth checking.
    slopes, classes = torch.rand(k, k), torch.arange(k)
    # The covariances are read once; Sigma_c w_k for all c and k is one product, its gradient needs none.
    floor = Floor(k * a * a * FLOAT, 2 * k * k * a * a)
    case = f"margin variances, K {k}, A {a}, with gradient"
    costs = report.compare(
        case,
        {
            "one row per class": lambda w: (
                reference.margin_variance_per_row(w, covariance, classes) * slopes
            ).sum(),
            "fakd": lambda w: (margin_variance(w, covariance) * slopes).sum(),
        },
        [weight],
        floor,
        other={"fakd, logit variances": lambda w: (logit_variance(w, covariance) * slopes).sum()},
    )
    rows, ours = costs["one row per class"], costs["fakd"]
    report.at_least("8", f"{case}: speed-up over one row per class", rows.ms / ours.ms, 2.5)
    report.at_least("8", f"{case}: memory saved", rows.peak / ours.peak, 5, timed=False)


def per_pixel(report: Report) -> None:
    """Bar 9: every pixel's variances, in ISDA's manner with (A, A) and (K, A) per pixel, or by the table."""
    n, k, a = report.shape(512, 19, 128)
    weight, covariance = weight_and_covariance(k, a)
    labels, slopes = torch.randint(k, (n,)), torch.rand(n, k)
    case = f"margin variances of {n} pixels, K {k}, A {a}, with gradient"
    costs = report.compare(
        case,
        {
            "one row per pixel": lambda w: (
                reference.margin_variance_per_row(w, covariance, labels) * slopes
            ).sum(),
            "fakd": lambda w: (margin_variance(w, covariance)[labels] * slopes).sum(),
        },
        [weight],
        Floor(k * a * a * FLOAT, 2 * k * k * a * a),
    )
    rows, ours = costs["one row per pixel"], costs["fakd"]
    report.at_least("9", f"{case}: speed-up over one row per pixel", rows.ms / ours.ms, 10)
    share = ours.largest / (n * k * a * FLOAT)
    report.at_most("9", f"{case}: largest tensor over N K A", share, 0.5, timed=False)


def pixels(n: int, k: int, a: int) -> tuple[Tensor, Tensor]:
    """Features behind a ReLU (4, A, n / 4, 1), and labels (4, n / 4, 1) of unequal frequency."""
    labels = (k * torch.rand(4, n // 4, 1) ** 2).long()
    return torch.randn(4, a, n // 4, 1).relu(), labels


def updater(estimator: ClassCovariance, feature: Tensor, labels: Tensor) -> Callable[[], None]:
    valid = torch.ones_like(labels, dtype=torch.bool)
    return lambda: estimator.update(feature, labels, valid)


def covariance(report: Report, diagonal: bool, speed: float) -> tuple[str, float]:
    """Bar 10: both estimators on the same batch; the case, and how much less memory ours takes."""
    n, k, a = report.shape(2048, 150, 128)
    feature, labels = pixels(n, k, a)
    rows, classes = feature.movedim(1, -1).reshape(-1, a), labels.flatten()
    literal, ours = reference.Estimator(k, a, diagonal), ClassCovariance(k, a, diagonal)
    update = updater(ours, feature, labels)
    for _ in range(2):
        update()
        literal.update(rows, classes)
    kind = "diagonal" if diagonal else "full"
    check(f"{kind} covariance", [ours.mean, ours.covariance], [literal.mean, literal.covariance])
    mean, exact = reference.class_covariance(rows.double(), classes, k)
    exact = exact.diagonal(dim1=1, dim2=2) if diagonal else exact
    check(f"{kind} covariance against float64", [ours.mean, ours.covariance], [mean, exact])

    case = f"{kind} covariance, {n} pixels, K {k}, A {a}"
    steps = {"one row per pixel and class": lambda: literal.update(rows, classes), "fakd": update}
    theirs, own = report.measure(case, steps, covariance_floor(n, k, a, diagonal)).values()
    report.at_least("10", f"{case}: speed-up over one row per pixel and class", theirs.ms / own.ms, speed)
    return case, theirs.peak / own.peak


def large_covariance(report: Report) -> None:
    """Bar 11: a batch of four crops of 512x512 at stride 8, ADE20K's classes, a 512-channel head."""
    n, k, a = report.shape(16384, 150, 512)
    feature, labels = pixels(n, k, a)
    case = f"full covariance, {n} pixels, K {k}, A {a}"
    floor = covariance_floor(n, k, a, False)
    cost = report.measure(case, {"fakd": updater(ClassCovariance(k, a), feature, labels)}, floor)["fakd"]
    report.at_most("11", f"{case}: time over the floor", cost.floors, 3)
    report.at_most("11", f"{case}: peak MB", cost.peak / 1e6, 400, timed=False)


def covariance_floor(n: int, k: int, a: int, diagonal: bool) -> Floor:
    """The pixels are read, the state is read and written, and x x' is a product of matrices."""
    state = k * a if diagonal else k * a * a
    return Floor((n * a + 2 * state) * FLOAT, 0 if diagonal else 2 * n * a * a)


def fill(report: Report) -> None:
    tables(report)
    per_pixel(report)
    case, saved = covariance(report, diagonal=False, speed=10)
    report.at_least("10", f"{case}: memory saved", saved, 15, timed=False)
    covariance(report, diagonal=True, speed=50)
    large_covariance(report)


if __name__ == "__main__":
    sys.exit(main(fill))
