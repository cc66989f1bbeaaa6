"""Bars 12 to 14: SKDS's pairs and IFVD beside the forms of public code."""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from torch import Tensor

from fakd.functional.relation import centre_similarity, similarity_gap, unit_vectors

from .harness import Floor, check, loss_and_gradients
from .report import Report, main

FLOAT = 4  # bytes


def pairs_public(student: Tensor, teacher: Tensor) -> Tensor:
    """Both similarity matrices whole."""
    s, t = (F.normalize(F.max_pool2d(x, 2, 2).flatten(2), dim=1) for x in (student, teacher))
    gap = torch.einsum("nai,naj->nij", t, t) - torch.einsum("nai,naj->nij", s, s)
    return (gap.square() / gap.shape[1] ** 2 / len(gap)).sum()


def pairs(student: Tensor, teacher: Tensor) -> Tensor:
    s, t = (unit_vectors(F.max_pool2d(x, 2, 2).flatten(2), 1) for x in (student, teacher))
    return similarity_gap(s, t) / (s.shape[0] * s.shape[2] ** 2)


def centres_public(feature: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """One class at a time, with masks of the size of the feature."""
    centre, labels = feature.clone(), labels[:, None].to(feature.dtype).expand_as(feature)
    for k in range(num_classes):
        mask = (labels == k).to(feature.dtype)
        mean = (mask * feature).sum(-1).sum(-1) / (mask.sum(-1).sum(-1) + 1e-6)
        centre = (1 - mask) * centre + mask * mean[:, :, None, None]
    return F.cosine_similarity(feature, centre)


def variation(form, student: Tensor, teacher: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    with torch.no_grad():
        target = form(teacher, labels, num_classes)
    return (form(student, labels, num_classes) - target).square().mean()


def against_float64() -> None:
    student, teacher, labels = torch.randn(2, 6, 4, 6), torch.randn(2, 6, 4, 6), torch.randint(4, (2, 4, 6))
    exact = teacher.double()
    for name, ours, public in (
        ("SKDSPair", pairs, pairs_public),
        (
            "IFVD",
            lambda s, t: variation(centre_similarity, s, t, labels, 4),
            lambda s, t: variation(centres_public, s, t, labels, 4),
        ),
    ):
        wanted = loss_and_gradients(lambda s, f=public: f(s, exact), [student.double()])
        got = loss_and_gradients(lambda s, f=ours: f(s, teacher), [student])
        check(f"{name} against float64", got, wanted)


def skds(report: Report) -> None:
    """Bar 12."""
    n, a, h, w = report.shape(4, 128, 64, 64)
    student, teacher = torch.randn(n, a, h, w), torch.randn(n, a, h, w)
    nodes = (h // 2) * (w // 2)
    case = f"SKDSPair {n}x{a}x{h}x{w}, {nodes} nodes"
    costs = report.compare(
        case,
        {"public form": lambda s: pairs_public(s, teacher), "fakd": lambda s: pairs(s, teacher)},
        [student],
        Floor(3 * student.numel() * FLOAT, 3 * 2 * n * a * nodes**2),
    )
    public, ours = costs["public form"], costs["fakd"]
    report.at_least("12", f"{case}: speed-up over the public form", public.ms / ours.ms, 1.2)
    report.at_least("12", f"{case}: memory saved", public.peak / ours.peak, 5, timed=False)


def ifvd(report: Report) -> None:
    """Bar 13."""
    for (n, a, h, w), k, goal in (((2, 512, 64, 64), 19, 8), ((1, 128, 64, 64), 150, 40)):
        n, a, h, w = report.shape(n, a, h, w)
        student, teacher = torch.randn(n, a, h, w), torch.randn(n, a, h, w)
        labels = torch.randint(k, (n, h, w))
        case = f"IFVD {n}x{a}x{h}x{w}, {k} classes"
        forms = {"public form": centres_public, "fakd": centre_similarity}
        costs = report.compare(
            case,
            {
                name: lambda s, f=form, t=teacher, y=labels, k=k: variation(f, s, t, y, k)
                for name, form in forms.items()
            },
            [student],
            Floor(3 * student.numel() * FLOAT),
        )
        public, ours = costs["public form"], costs["fakd"]
        report.at_least("13", f"{case}: speed-up over the public form", public.ms / ours.ms, goal)
        peak = ours.peak / (student.numel() * FLOAT)
        report.at_most("13", f"{case}: peak in features", peak, 2.5, timed=False)


def ifvd_classes(report: Report) -> None:
    """Bar 14."""
    n, a, h, w = report.shape(1, 512, 64, 64)
    student, teacher = torch.randn(n, a, h, w), torch.randn(n, a, h, w)
    case, ms = f"IFVD {n}x{a}x{h}x{w}", {}
    for k in (19, 150):
        labels = torch.randint(k, (n, h, w))
        variant = {"fakd": lambda s, y=labels, k=k: variation(centre_similarity, s, teacher, y, k)}
        floor = Floor(3 * student.numel() * FLOAT)
        ms[k] = report.compare(f"{case}, {k} classes", variant, [student], floor)["fakd"].ms
    report.at_most("14", f"{case}: time with 150 classes over that with 19", ms[150] / ms[19], 1.3)


def fill(report: Report) -> None:
    against_float64()
    skds(report)
    ifvd(report)
    ifvd_classes(report)


if __name__ == "__main__":
    sys.exit(main(fill))
