"""Logging of a run during training."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from detectron2.engine import HookBase, hooks
from detectron2.utils.events import EventWriter
from tqdm import tqdm

from fakd.files import atomic_write
from fakd.statistics import ClassCovariance

from .hooks import unwrapped
from .writers import ScalarWriter


class ModelScalars(HookBase):
    """Logs the scalars of a model with ``pop_scalars``, just before the writers write."""

    def __init__(self, period: int) -> None:
        self._period = period

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        pop = getattr(unwrapped(self.trainer.model), "pop_scalars", None)
        if pop is None or (done % self._period and done != self.trainer.max_iter):
            return
        self.trainer.storage.put_scalars(**pop(), smoothing_hint=False)


class CovarianceScalars(HookBase):
    """Logs trace and largest eigenvalue of every class's covariance, about twenty times a run.

    The names are ``<loss>/trace/<class>`` and ``<loss>/eigenvalue/<class>``. All classes come to the host in
    one copy.
    """

    _TIMES = 20

    def __init__(self, period: int, classes: Sequence[str]) -> None:
        """
        Args:
            period: of the writers; what is logged between two of their turns would be lost.
            classes: names of the K classes.
        """
        self._period, self._classes = period, classes

    def before_train(self) -> None:
        state = getattr(unwrapped(self.trainer.model), "distillation_state", torch.nn.Module())
        self._found = {
            name.split(".")[0]: module
            for name, module in state.named_modules()
            if isinstance(module, ClassCovariance)
        }
        self._every = self._period * max(1, round(self.trainer.max_iter / self._period / self._TIMES))

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._every and done != self.trainer.max_iter:
            return
        for loss, statistics in self._found.items():
            for kind, values in zip(
                ("trace", "eigenvalue"), torch.stack(statistics.spread()).tolist(), strict=True
            ):
                named = {f"{loss}/{kind}/{c}": v for c, v in zip(self._classes, values, strict=True)}
                self.trainer.storage.put_scalars(**named, smoothing_hint=False)


class ProgressBar(HookBase):
    """Shows iterations, time left, loss and learning rate on a tqdm bar."""

    _PERIOD = 5

    def __init__(self, bar: tqdm) -> None:
        """
        Args:
            bar: its owner sets the total and closes it; several runs may share it.
        """
        self._bar = bar

    def before_train(self) -> None:
        # Steps of an earlier process count as done, but not for the speed.
        self._bar.initial += self.trainer.start_iter
        self._bar.update(self.trainer.start_iter)

    def after_step(self) -> None:
        if (self.trainer.iter + 1) % self._PERIOD == 0:
            latest = self.trainer.storage.latest()
            shown = {"loss": latest.get("total_loss"), "lr": latest.get("lr")}
            self._bar.set_postfix({k: f"{v[0]:.3g}" for k, v in shown.items() if v}, refresh=False)
        self._bar.update(1)


class Writers(hooks.PeriodicWriter):
    """detectron2's, with writers built when the first iteration of this process is known.

    ``metrics.json`` may hold iterations after the checkpoint from which a run resumes; they are cut off, as
    they will be written again.
    """

    def __init__(self, build: Callable[[], list[EventWriter]], metrics_file: str, period: int) -> None:
        super().__init__([], period)
        self._build, self._metrics_file = build, Path(metrics_file)
        self._written = -1

    def write(self) -> None:
        """Writes what was logged up to this step, once."""
        if self._written < self.trainer.iter:
            self._written = self.trainer.iter
            for writer in self._writers:
                writer.write()

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._period == 0 or done == self.trainer.max_iter:
            self.write()

    def after_train(self) -> None:
        # Not twice where a step failed after its turn: the console divides by the steps in between.
        self.write()
        for writer in self._writers:
            if isinstance(writer, ScalarWriter):
                writer.complete = self.trainer.iter >= self.trainer.max_iter
            writer.close()

    def before_train(self) -> None:
        if self._metrics_file.exists():
            self._cut(self.trainer.start_iter)
        self._writers = self._build()

    def _cut(self, start: int) -> None:
        kept = []
        for line in self._metrics_file.read_text().splitlines(keepends=True):
            if not line.endswith("\n"):  # torn by a kill
                break
            if json.loads(line)["iteration"] < start:
                kept.append(line)
        with atomic_write(self._metrics_file, "w") as file:
            file.writelines(kept)
