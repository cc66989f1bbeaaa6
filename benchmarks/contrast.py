"""Bars 15 and 16: CIRKD's similarities beside forms that hold whole matrices."""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from torch import Tensor

from fakd.functional.contrast import contrast_kl, pairwise_kl, unit_rows
from fakd.statistics.class_queue import ClassQueue, SharedRandom

from .harness import Floor, check, loss_and_gradients
from .report import Report, main

TAU = 0.1
FLOAT = 4  # bytes


def batch_literal(student: Tensor, teacher: Tensor) -> Tensor:
    """A loop over ordered pairs of images; autograd keeps two matrices of each."""
    s, t = unit_rows(student), unit_rows(teacher)
    total = student.new_zeros(())
    for i in range(len(s)):
        for j in range(len(s)):
            q = F.log_softmax(s[i] @ s[j].T / TAU, 1)
            p = F.softmax(t[i] @ t[j].T / TAU, 1)
            total = total + F.kl_div(q, p, reduction="batchmean")
    return total / len(s) ** 2


def batch(student: Tensor, teacher: Tensor) -> Tensor:
    n, _, h, w = student.shape
    return pairwise_kl(unit_rows(student), unit_rows(teacher), TAU) / (n * n * h * w)


def memory_literal(student: Tensor, teacher: Tensor, keys: Tensor) -> Tensor:
    """Pixels (P, A) against keys (C, A) in two whole matrices."""
    q = F.log_softmax(student @ keys.T / TAU, 1)
    return F.kl_div(q, F.softmax(teacher @ keys.T / TAU, 1), reduction="batchmean")


def memory(student: Tensor, teacher: Tensor, keys: Tensor) -> Tensor:
    return contrast_kl(student, teacher, keys, TAU) / len(student)


def against_float64() -> None:
    student, teacher = torch.randn(3, 5, 4, 6), torch.randn(3, 7, 4, 6)
    wanted = loss_and_gradients(lambda s: batch_literal(s, teacher.double()), [student.double()])
    check("CIRKDBatch against float64", loss_and_gradients(lambda s: batch(s, teacher), [student]), wanted)
    student, teacher, keys = rows(40, 8), rows(40, 8), rows(30, 8)
    exact = teacher.double(), keys.double()
    wanted = loss_and_gradients(lambda s: memory_literal(s, *exact), [student.double()])
    got = loss_and_gradients(lambda s: memory(s, teacher, keys), [student])
    check("CIRKDMemory against float64", got, wanted)


def rows(count: int, channels: int) -> Tensor:
    """Unit vectors."""
    return F.normalize(torch.randn(count, channels), dim=1)


def mini_batch(report: Report) -> None:
    """Bar 15."""
    n, a, h, w = report.shape(2, 128, 64, 64)
    student, teacher = torch.randn(n, a, h, w), torch.randn(n, a, h, w)
    case = f"CIRKDBatch {n}x{a}x{h}x{w}"
    # Both similarities and the gradient's product, of half of all pairs, since the other half mirrors it.
    floor = Floor(3 * student.numel() * FLOAT, 4 * (n * h * w) ** 2 * a)
    costs = report.compare(
        case,
        {"pair by pair": lambda s: batch_literal(s, teacher), "fakd": lambda s: batch(s, teacher)},
        [student],
        floor,
    )
    pairs, ours = costs["pair by pair"], costs["fakd"]
    report.at_least("15", f"{case}: speed-up over pair by pair", pairs.ms / ours.ms, 2)
    report.at_least("15", f"{case}: memory saved", pairs.peak / ours.peak, 8, timed=False)


def class_memory(report: Report) -> None:
    """Bar 16, and what the queues cost beside it."""
    pixels, keys, a = (8192, 4180, 128) if not report.tiny else (16, 9, 8)
    student, teacher, entries = rows(pixels, a), rows(pixels, a), rows(keys, a)
    case = f"CIRKDMemory {pixels} pixels, {keys} keys, A {a}"
    costs = report.compare(
        case,
        {
            "whole matrices": lambda s: memory_literal(s, teacher, entries),
            "fakd": lambda s: memory(s, teacher, entries),
        },
        [student],
        Floor((3 * pixels + keys) * a * FLOAT, 6 * pixels * keys * a),
    )
    whole, ours = costs["whole matrices"], costs["fakd"]
    report.at_least("16", f"{case}: speed-up over whole matrices", whole.ms / ours.ms, 2)
    report.at_least("16", f"{case}: memory saved", whole.peak / ours.peak, 20, timed=False)

    k, size, a = report.shape(150, 2000, 512)
    queue, random = ClassQueue(k, size, a), SharedRandom()
    cost = report.measure(
        f"28 keys from each of {k} queues of {size}, A {a}",
        {"fakd": lambda: queue.sample(28, random)},
        Floor(k * min(28, size) * a * (2 + FLOAT)),
    )["fakd"]
    share = cost.peak / (k * min(28, size) * a * FLOAT)
    report.at_most("16", "sampling: peak in copies of the sample", share, 2, timed=False)


def fill(report: Report) -> None:
    against_float64()
    mini_batch(report)
    class_memory(report)


if __name__ == "__main__":
    sys.exit(main(fill))
