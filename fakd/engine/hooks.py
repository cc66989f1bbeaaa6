"""Hooks that run around each training step."""

import logging
import math
import signal
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import torch
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from torch import nn

from fakd.checkpoint import Checkpointer

from . import provenance
from .signals import received_signal

logger = logging.getLogger(__name__)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel, or the model itself."""
    return getattr(model, "module", model)


def share_buffers(network: nn.Module) -> None:
    """Gives all ranks the main process's buffers, which are the ones saved.

    Each rank's batch norm has statistics of its own part of the batches, unless SYNC_BN shares them.
    """
    if comm.get_world_size() > 1:
        saved = {name for name, _ in getattr(network, "student", network).named_buffers()}
        for name, buffer in network.state_dict().items():
            if name in saved:
                torch.distributed.broadcast(buffer, src=0)


class StepSeed(HookBase):
    """Makes all random numbers of a step a function of seed, iteration and rank.

    So dropout needs no saved generator state: a resumed run draws what an undisturbed one would.
    """

    def __init__(self, seed: int) -> None:
        self._seed = max(seed, 0)

    def before_step(self) -> None:
        key = (self._seed, self.trainer.iter, comm.get_rank())
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))


class RunClock(HookBase):
    """Wall-clock and time per step of a run over all its restarts."""

    _WARM_UP = 3
    _KEEP = 1000

    def __init__(self) -> None:
        self._earlier, self._start = 0.0, perf_counter()
        self._steps: deque[float] = deque(maxlen=self._KEEP)

    def wall_clock(self) -> float:
        """Seconds since training began, evaluations included, pauses between a stop and its resume not."""
        return self._earlier + perf_counter() - self._start

    def seconds_per_iteration(self) -> float | None:
        """Median over the last steps, the first ones after each start left out; None when there were none."""
        return float(np.median(self._steps)) if self._steps else None

    def before_train(self) -> None:
        self._start = perf_counter()

    def before_step(self) -> None:
        self._step_start = perf_counter()

    def after_step(self) -> None:
        if self.trainer.iter - self.trainer.start_iter >= self._WARM_UP:
            self._steps.append(perf_counter() - self._step_start)

    def state_dict(self) -> dict[str, Any]:
        return {"wall_clock": self.wall_clock(), "steps": list(self._steps)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self._earlier = state["wall_clock"]
        self._steps.extend(state["steps"])


class PeakMemory(HookBase):
    """Measures memory from before the first step to after the last evaluation.

    Attributes:
        peak_mb: see :func:`fakd.engine.provenance.peak_memory_mb`.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self.peak_mb: float | None = None

    def before_train(self) -> None:
        provenance.reset_peak_memory(self._device)

    def after_train(self) -> None:
        self.peak_mb = provenance.peak_memory_mb(self._device)


class Budget(HookBase):
    """Measures the spent share of the training budget, which all schedules follow; at 1 training ends.

    The budget is iterations, and seconds where there is a limit: whichever of the two is further on counts.
    So a run that the clock ends has seen the small learning rates and the large lambda of its last iterations
    all the same. Warm-up of n iterations is then the first n / MAX_ITER of the seconds.
    """

    _PERIOD = 10  # steps between two agreements of several ranks

    def __init__(self, clock: RunClock, max_seconds: float) -> None:
        """
        Args:
            clock: of the run.
            max_seconds: of training, evaluations and earlier processes of the run included.
        """
        self._clock, self._max_seconds = clock, max_seconds
        self._seconds_spent = 0.0  # as a share; the same on all ranks, as their learning rates must be

    @property
    def spent(self) -> float:
        """In [0, 1]: 0 before the first step, 1 after the last."""
        return self._position / self._length

    def before_train(self) -> None:
        self._length = self.trainer.max_iter
        self._set(self.trainer.iter, agree=True)
        if self._seconds_spent >= 1 and self.trainer.iter > 0:  # resumed in its last evaluation
            self.trainer.max_iter = self.trainer.iter
        self._evaluated = self.trainer.last_metrics
        self._tell = getattr(unwrapped(self.trainer.model), "set_progress", None)

    def before_step(self) -> None:
        if self.trainer.last_metrics is not self._evaluated:  # which has taken time
            self._evaluated = self.trainer.last_metrics
            self._set(self.trainer.iter, agree=True)
        if self._tell is not None:
            self._tell(self.spent)

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        self._set(done, agree=done % self._PERIOD == 0)
        if math.isinf(self._max_seconds):
            return
        self.trainer.scheduler.last_epoch = self._position - 1  # the next hook takes it one further
        if self._seconds_spent >= 1:
            self.trainer.max_iter = self.trainer.iter + 1

    def _set(self, done: int, agree: bool) -> None:
        if math.isfinite(self._max_seconds):
            share = min(self._clock.wall_clock() / self._max_seconds, 1.0)
            if comm.get_world_size() == 1:
                self._seconds_spent = share
            elif agree:
                self._seconds_spent = max(comm.all_gather(share))
        # In iterations, so that without a time limit it equals the iteration exactly.
        self._position = max(done, self._seconds_spent * self._length)


class EvalHook(hooks.EvalHook):
    """detectron2's, but after the last step it evaluates only if that step succeeded."""

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            super().after_train()


class BestCheckpointer(hooks.BestCheckpointer):
    """detectron2's, but it keeps the best value over a resume, and saves only the model."""

    def __init__(self, eval_period: int, checkpointer: Checkpointer, val_metric: str) -> None:
        super().__init__(eval_period, _ModelSaver(checkpointer), val_metric)

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:  # as EvalHook
            super().after_train()

    def forget(self) -> None:
        """The next evaluation is the best so far, whatever came before."""
        self.best_metric = self.best_iter = None

    def state_dict(self) -> dict[str, Any]:
        return {"best_metric": self.best_metric, "best_iter": self.best_iter}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.best_metric, self.best_iter = state["best_metric"], state["best_iter"]


class _ModelSaver:
    """Gives ``Checkpointer.save_model`` the name that detectron2's hook calls."""

    def __init__(self, checkpointer: Checkpointer) -> None:
        self.save = checkpointer.save_model


class SaveState(HookBase):
    """Saves all the state every ``period`` steps and at the end, then also the model alone.

    It comes after the evaluation, so that a resumed run has seen every evaluation its past made, and writes
    the log first, because what is logged and not written would be lost to it.
    """

    def __init__(self, checkpointer: Checkpointer, period: int, write_log: Callable[[], None]) -> None:
        self._checkpointer = checkpointer
        self._period = period
        self._write_log = write_log

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter or (self._period > 0 and done % self._period == 0):
            self.save()
        if done == self.trainer.max_iter:
            self._checkpointer.save_model("model_final", iteration=self.trainer.iter)

    def save(self) -> None:
        """
        Raises:
            OSError: the disk is full or not writable.
            FloatingPointError: a weight is not finite. In both cases earlier checkpoints are untouched.
        """
        self._write_log()
        self._checkpointer.save(f"model_{self.trainer.iter:07d}", iteration=self.trainer.iter)


class StopOnSignal(HookBase):
    """Where a signal came: saves all the state after the step, and exits with 128 + the signal's number."""

    _PERIOD = 10  # steps between two agreements of several ranks

    def __init__(self, save: Callable[[], None]) -> None:
        """
        Args:
            save: writes all the state; called on the main process.
        """
        self._save = save

    def after_step(self) -> None:
        """
        Raises:
            SystemExit: on all ranks after the same step.
        """
        done, end = self.trainer.iter + 1, self.trainer.max_iter
        received = received_signal()
        if comm.get_world_size() > 1:
            received = max(comm.all_gather(received)) if done % self._PERIOD == 0 or done == end else 0
        if not received:
            return
        if comm.is_main_process():
            if done < end:  # else it is saved
                self._save()
            logger.warning(
                f"Stopped by {signal.Signals(received).name} after {done} of {end} iterations; everything is "
                "saved. The same command with --resume continues."
            )
        comm.synchronize()  # if one rank ended earlier, the others would be killed
        raise SystemExit(128 + received)
