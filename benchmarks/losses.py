"""Bars 1 to 7 and 17: PD, CWD, their augmented forms and the cross-entropy beside plain reference forms."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import torch
from torch import Tensor

from fakd.functional.augmentation import augmented_pixel_kl
from fakd.functional.divergence import Offset, channel_kl, pixel_kl, softmax_kl
from fakd.functional.label_losses import upsampled_cross_entropy

from . import reference
from .harness import Floor, Loss, check, loss_and_gradients
from .report import Report, main

TAU = 4.0  # of CWD; PD has 1


def fakd_pixel(student: Tensor, teacher: Tensor, table: Tensor, labels: Tensor) -> Tensor:
    """Eq. 8, mean over pixels."""
    return augmented_pixel_kl(student, teacher, table, labels) / labels.numel()


def fakd_channel(
    student: Tensor, teacher: Tensor, table: Tensor, labels: Tensor, form: str = "shift"
) -> Tensor:
    """Eq. 7, mean over images and channels; "shift" is the default, "bound" the equation."""
    count = student.shape[0] * student.shape[1]
    total = softmax_kl(student, teacher, TAU, "pixels", offset=Offset(table, labels, form))
    return TAU**2 * total / count


def inputs(n: int, k: int, m: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits of student and teacher (N, K, M), offsets (K, K) with a zero diagonal, labels (N, M)."""
    table = torch.rand(k, k).fill_diagonal_(0)
    return 2 * torch.randn(n, k, m), 3 * torch.randn(n, k, m), table, torch.randint(k, (n, m))


def floor(logits: Tensor, flops: float = 0.0) -> Floor:
    """Both logits are read and the student's gradient is written."""
    return Floor(3 * logits.numel() * logits.element_size(), flops)


def title(name: str, logits: Tensor) -> str:
    return f"{name} {'x'.join(map(str, logits.shape))}"


def against_float64() -> None:
    """Value and gradients of every loss against its formula, literally, in float64."""
    student, teacher, table, labels = inputs(2, 5, 24)
    exact = teacher.double()
    both, alone = [student, table], [student]
    for name, leaves, ours, literal in (
        ("PD", alone, lambda s: pixel_kl(s, teacher), lambda s: reference.log_softmax_kl(s, exact, 1.0, 1)),
        (
            "CWD",
            alone,
            lambda s: channel_kl(s, teacher, TAU),
            lambda s: reference.log_softmax_kl(s, exact, TAU, 2),
        ),
        (
            "FAKDPixel",
            both,
            lambda s, g: fakd_pixel(s, teacher, g, labels),
            lambda s, g: reference.augmented_pixel_kl(s, exact, g),
        ),
        (
            "FAKDChannel",
            both,
            lambda s, v: fakd_channel(s, teacher, v, labels, "bound"),
            lambda s, v: reference.augmented_channel_kl(s, exact, v, labels, TAU),
        ),
    ):
        wanted = loss_and_gradients(literal, [x.double() for x in leaves])
        check(f"{name} against float64", loss_and_gradients(ours, leaves), wanted)


def plain(report: Report) -> None:
    """Bars 1 to 3."""
    for sizes in ((4, 150, 4096), (2, 19, 32768)):
        student, teacher, _, _ = inputs(*report.shape(*sizes))
        variants: dict[str, Loss] = {
            "public form": lambda s, t=teacher: reference.pixel_kl(s, t, 1.0),
            "fakd": lambda s, t=teacher: pixel_kl(s, t),
        }
        beside(report, title("PD", student), student, variants, {"public form": ("1", 3.0)})
        variants = {
            "public form": lambda s, t=teacher: reference.channel_kl(s, t, TAU),
            "log-softmax form": lambda s, t=teacher: reference.channel_kl_log_softmax(s, t, TAU),
            "fakd": lambda s, t=teacher: channel_kl(s, t, TAU),
        }
        goals = {"public form": ("2", 1.8), "log-softmax form": ("2", 1.2)}
        beside(report, title("CWD", student), student, variants, goals)


def beside(
    report: Report,
    case: str,
    student: Tensor,
    variants: Mapping[str, Loss],
    goals: Mapping[str, tuple[str, float]],
) -> None:
    """Speed-up over every form in ``goals`` (bar and goal by name), and memory in gradients."""
    costs = report.compare(case, variants, [student], floor(student))
    for name, (number, goal) in goals.items():
        speed = costs[name].ms / costs["fakd"].ms
        report.at_least(number, f"{case}: speed-up over the {name}", speed, goal)
    peak = costs["fakd"].peak / (student.numel() * student.element_size())
    report.at_most("3", f"{case}: peak in gradients", peak, 2, timed=False)


def finite(report: Report) -> None:
    """Bar 4: logits so far apart that the logarithm of a softmax is minus infinity."""
    student, teacher = 30 * torch.randn(2, 19, 4096), 30 * torch.randn(2, 19, 4096)
    worst = {}
    for name, loss in (("fakd", channel_kl), ("public", reference.channel_kl)):
        results = loss_and_gradients(lambda s, f=loss: f(s, teacher, 1.0), [student])
        worst[name] = min(float(x.isfinite().all()) for x in results)
    other = "finite" if worst["public"] else "not"
    what = f"CWD finite at logits of std 30, tau 1 (public form: {other})"
    report.at_least("4", what, worst["fakd"], 1, timed=False)


def augmented_pixel(report: Report) -> None:
    """Bars 5 and 6."""
    student, teacher, table, labels = inputs(*report.shape(1, 150, 1024))
    case = title("FAKDPixel with gradient into the table", student)
    flops = 4 * 2 * student.numel() * student.shape[1]
    costs = report.compare(
        case,
        {
            "literal": lambda s, g: reference.augmented_pixel_kl(s, teacher, g),
            "fakd": lambda s, g: fakd_pixel(s, teacher, g, labels),
        },
        [student, table],
        floor(student, flops),
    )
    literal, ours = costs["literal"], costs["fakd"]
    report.at_least("5", f"{case}: speed-up over the literal form", literal.ms / ours.ms, 100)
    report.at_least("5", f"{case}: memory saved", literal.peak / ours.peak, 50, timed=False)

    student, teacher, table, labels = inputs(*report.shape(4, 150, 4096))
    case = title("FAKDPixel", student)
    costs = report.compare(
        case,
        {"fakd": lambda s: fakd_pixel(s, teacher, table, labels)},
        [student],
        floor(student, 2 * 2 * student.numel() * student.shape[1]),
        other={"PD, public form": lambda s: reference.pixel_kl(s, teacher, 1.0)},
    )
    pd, ours = costs["PD, public form"], costs["fakd"]
    report.at_most("6", f"{case}: time over PD's public form", ours.ms / pd.ms, 1.5)
    report.at_most("6", f"{case}: peak over PD's public form", ours.peak / pd.peak, 0.4, timed=False)


def augmented_channel(report: Report) -> None:
    """Bar 7."""
    for n, k, m, time in ((4, 150, 4096, 1.3), (2, 19, 4096, 2.0)):
        student, teacher, table, labels = inputs(*report.shape(n, k, m))
        case = title("FAKDChannel", student)
        costs = report.compare(
            case,
            {"fakd": lambda s, t=teacher, g=table, y=labels: fakd_channel(s, t, g, y)},
            [student],
            floor(student),
            other={"CWD, public form": lambda s, t=teacher: reference.channel_kl(s, t, TAU)},
        )
        cwd, ours = costs["CWD, public form"], costs["fakd"]
        report.at_most("7", f"{case}: time over CWD's public form", ours.ms / cwd.ms, time)
        report.at_most("7", f"{case}: peak over CWD's public form", ours.peak / cwd.peak, 0.7, timed=False)


def cross_entropy(report: Report) -> None:
    """Bar 17."""
    for n, k in ((1, 150), (2, 19)):
        _, _, h, side = report.shape(n, k, 64, 512)
        logits = 3 * torch.randn(n, k, h, h)
        labels = torch.randint(k, (n, side, side))
        case = title("cross-entropy of logits", logits) + f" at {side}x{side}"
        costs = report.compare(
            case,
            {
                "up-sampled": lambda x, y=labels: reference.upsampled_cross_entropy(x, y) / y.numel(),
                "fakd": lambda x, y=labels: upsampled_cross_entropy(x, y) / y.numel(),
            },
            [logits],
            Floor(2 * logits.nbytes + labels.nbytes),
        )
        plain, ours = costs["up-sampled"], costs["fakd"]
        report.at_least("17", f"{case}: speed-up over up-sampled scores", plain.ms / ours.ms, 1.5)
        report.at_least("17", f"{case}: memory saved", plain.peak / ours.peak, 7, timed=False)


def fill(report: Report) -> None:
    against_float64()
    plain(report)
    finite(report)
    augmented_pixel(report)
    augmented_channel(report)
    cross_entropy(report)


if __name__ == "__main__":
    sys.exit(main(fill))
