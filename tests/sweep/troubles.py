"""Losses whose value is that of a plain one, and that bring a trial into trouble in the middle."""

import errno
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from fakd.losses.base import DistillLoss, option
from fakd.registry import DISTILL_LOSS_REGISTRY


class _Trouble(DistillLoss):
    @dataclass
    class Config(DistillLoss.Config):
        marker: str = option("", "a file; the trouble is over once it exists")

    def forward(self, inputs):
        if inputs.progress >= 0.5 and not Path(self.config.marker).exists():
            self.happen(Path(self.config.marker))
        return (inputs.student.logits - inputs.teacher.logits).square().mean()


class Waits(_Trouble):
    """Until somebody makes the file."""

    def happen(self, marker):
        while not marker.exists():
            time.sleep(0.05)


class Dies(_Trouble):
    """Once."""

    def happen(self, marker):
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


class Stumbles(_Trouble):
    """Once, over something that may pass."""

    def happen(self, marker):
        marker.touch()
        raise OSError(errno.EIO, os.strerror(errno.EIO))


class RunsOut(_Trouble):
    """Of memory, once."""

    def happen(self, marker):
        marker.touch()
        raise torch.OutOfMemoryError("there is no more memory")


class Fails(_Trouble):
    """Always."""

    def happen(self, marker):
        raise FloatingPointError("this never works")


for loss in (Waits, Dies, Stumbles, RunsOut, Fails):
    if loss.__name__ not in DISTILL_LOSS_REGISTRY:
        DISTILL_LOSS_REGISTRY.register(loss)
