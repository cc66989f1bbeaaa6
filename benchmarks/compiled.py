"""What torch.compile makes of the plainest form of PD and CWD. Needs a C++ compiler and half a minute."""

from __future__ import annotations

import sys

import torch

from fakd.functional.divergence import channel_kl, pixel_kl

from . import reference
from .losses import TAU, floor, inputs, title
from .report import Report, main


def fill(report: Report) -> None:
    for name, tau, dim, ours in (("PD", 1.0, 1, pixel_kl), ("CWD", TAU, 2, channel_kl)):
        student, teacher, _, _ = inputs(*report.shape(4, 150, 4096))
        fused = torch.compile(reference.log_softmax_kl)
        report.compare(
            title(name, student),
            {
                "fakd": lambda s, t=teacher, f=ours, tau=tau: f(s, t, tau),
                "torch.compile": lambda s, t=teacher, f=fused, tau=tau, dim=dim: f(s, t, tau, dim),
            },
            [student],
            floor(student),
        )


if __name__ == "__main__":
    sys.exit(main(fill))
