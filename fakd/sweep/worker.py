"""The process of a trial: runs it, alone or in a pack, and records its events; no Ray here."""

from __future__ import annotations

import errno
import functools
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException
from tqdm import tqdm

from fakd.engine import SharedTeacherRun, evaluate_weights, run, run_side_by_side
from fakd.engine.cli import as_raised
from fakd.engine.run_folder import RunFolder
from fakd.errors import message_of

from .events import append, events_file
from .population import schedule_of
from .spec import METRICS
from .trial import Trial

# Another attempt would fail the same way.
_FINAL = (FloatingPointError, ValueError, KeyError, FileNotFoundError)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)

_PATIENCE = 5.0  # seconds in which ranks that failed have ended

Report = Callable[[dict[str, Any]], None]


class Paused(BaseException):
    """Ends the process of a run that waits for its population; no Exception, because nothing failed."""


class SweepReporter(HookBase):
    """Reports every evaluation to the sweep, and the progress in between."""

    _PERIOD = 3.0  # seconds

    def __init__(self, file: Path, report: Report, until: int | None = None):
        """
        Args:
            file: of the run's events.
            report: called with the metrics after each evaluation but the last, whose caller may end the
                process: the run would not come to write its result.
            until: pause after the evaluation at this iteration.
        """
        self._file, self._report, self._until = file, report, until
        self._seen: Any = None
        self._next = 0.0

    def before_train(self) -> None:
        self._seen = self.trainer.last_metrics

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if (metrics := self._write(done)) is not None:
            self._report(metrics)
            if done == self._until:
                raise Paused
        elif time.monotonic() >= self._next:
            append(self._file, "progress", **self._position(done))
            self._next = time.monotonic() + self._PERIOD

    def after_train(self) -> None:
        self._write(self.trainer.max_iter)  # the last evaluation comes after the last step

    def _write(self, iteration: int) -> dict[str, Any] | None:
        """The metrics of an evaluation that is new, once they are written down."""
        latest = self.trainer.last_metrics
        if latest is self._seen:
            return None
        self._seen = latest
        metrics = {**self._position(iteration), **{key: float(latest.first[key]) for key in METRICS}}
        append(self._file, "evaluation", **metrics)
        return metrics

    def _position(self, iteration: int) -> dict[str, Any]:
        clock, spent = self.trainer.clock, self.trainer.budget.spent
        return {"iteration": iteration, "seconds": clock.wall_clock(), "spent": spent}


def run_trials(
    trials: Sequence[Trial],
    output: Path,
    report: Report = lambda metrics: None,
    gpus: int = 0,
    until: int | None = None,
    bar: tqdm | None = None,
) -> str:
    """Runs or resumes one trial, or several side by side.

    Args:
        trials: of one pack.
        output: folder of the sweep.
        report, until: see :class:`SweepReporter`.
        gpus: devices this process may use; more than one trains on all of them.
        bar: progress bar to move along, of a trial alone.

    Returns:
        "finished", "failed", "out_of_memory" or "paused", as the events say too.

    Raises:
        OSError: the events cannot be written.
        Exception: something that another attempt may fix.
    """
    files = {trial: events_file(output, trial.folder) for trial in trials}
    hooks = {trial: SweepReporter(file, report, until) for trial, file in files.items()}
    try:
        for trial, file in files.items():
            append(file, "start", **_process(), **place_of(trial))
        errors = _run(hooks, gpus, bar)
    except Exception as error:
        if (event := _end_of(error)) is None:
            raise
        return record_error(files.values(), event, error)
    except Paused:
        append(files[trials[0]], "paused")
        return "paused"
    passing = None
    for trial, problem in errors.items():
        if problem is not None and (event := _end_of(problem)) is not None:
            record_error([files[trial]], event, problem)
        else:
            passing = passing or problem
    for trial, file in files.items():
        if (result := RunFolder(trial.folder).result()) is not None:
            append(file, "result", result=result, **_process())
    if passing is not None:
        raise passing  # another attempt leaves the finished ones as they are
    return "failed" if any(errors.values()) else "finished"


def _end_of(error: Exception) -> str | None:
    """The event that an error is; None where another attempt may fix it."""
    # The text is PyTorch's message when the host's memory is full.
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(error):
        return "out_of_memory"
    return "failed" if isinstance(error, _FINAL) or getattr(error, "errno", None) in _FULL else None


def record_error(files: Iterable[Path], event: str, error: BaseException) -> str:
    """Adds the event that an error is; returns it."""
    for file in files:
        trace = "".join(traceback.format_exception(error))
        append(file, event, error=message_of(error), traceback=trace)
    return event


def _process() -> dict[str, Any]:
    """Which process this is, and the processor time it has taken since it began, imports included."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "cpu_seconds": time.process_time()}


def place_of(trial: Trial) -> dict[str, Any]:
    """The run's place in the report, and its teacher."""
    return {
        "pair": trial.pair,
        "run": trial.run,
        "seed": trial.seed,
        "values": dict(trial.values),
        "folder": str(trial.folder),
        "teacher": trial.teacher or None,
        "schedule": schedule_of(trial),
    }


def _run(hooks: dict[Trial, SweepReporter], gpus: int, bar: tqdm | None) -> dict[Trial, Exception | None]:
    """What went wrong with each trial."""
    if len(hooks) > 1:
        runs = {
            trial: SharedTeacherRun(trial.config(), _has_begun(trial), trial.run, trial.config_file, [hook])
            for trial, hook in hooks.items()
        }
        run_side_by_side(list(runs.values()))
        return {trial: each.error for trial, each in runs.items()}
    ((trial, hook),) = hooks.items()
    if gpus > 1:
        _run_on_several(gpus, trial, hook)
    else:
        _run_one(trial, [hook], bar)
    return {trial: None}


def _run_one(trial: Trial, hooks: Sequence[HookBase] = (), bar: tqdm | None = None) -> None:
    if trial.given:
        if not trial.finished:
            evaluate_weights(trial.config(), trial.run, trial.config_file)
        return
    run(
        trial.config(),
        resume=_has_begun(trial),
        method=trial.run,
        config_file=trial.config_file,
        bar=bar,
        quiet=True,
        extra_hooks=hooks,
        max_seconds=trial.max_seconds,
    )


def _has_begun(trial: Trial) -> bool:
    return RunFolder(trial.folder).config_file.is_file()


def _run_on_several(gpus: int, trial: Trial, hook: SweepReporter) -> None:
    """This process is the first rank, so that it can report; the others are its children."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    rank = functools.partial(_rank, world=gpus, url=url, trial=trial)
    others = _Others(
        torch.multiprocessing.start_processes(rank, nprocs=gpus - 1, join=False, start_method="spawn")
    )
    try:
        _rank(-1, gpus, url, trial, [hook])
        others.wait()
    except Exception as error:
        # Where another rank went first, this one's error says no more than that it was left alone.
        others.wait(_PATIENCE)
        if others.error is not None and others.error is not error:
            raise others.error from error
        raise
    finally:
        others.kill()
        _leave_group()


class _Others:
    """The ranks beside this process's; if one fails, this one no longer waits for it in a collective."""

    def __init__(self, processes: torch.multiprocessing.ProcessContext):
        """
        Attributes:
            error: why the first of them failed, once it has.
        """
        self.error: Exception | None = None
        self._processes, self._over = processes, False
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def wait(self, seconds: float | None = None) -> None:
        """Until all have ended.

        Raises:
            Exception: one has failed, and no limit was given.
        """
        self._watcher.join(seconds)
        if seconds is None and self.error is not None:
            raise self.error

    def kill(self) -> None:
        """Ends those that are left."""
        self._over = True
        for process in self._processes.processes:
            process.kill()
        self._watcher.join(_PATIENCE)

    def _watch(self) -> None:
        try:
            while not self._processes.join(grace_period=1.0):
                pass
        except ProcessRaisedException as error:
            self.error = as_raised(error)
        except ProcessExitedException as error:
            self.error = error
        if self.error is not None and not self._over and torch.distributed.is_initialized():
            # Gloo notices that its peer is gone; NCCL would wait until its own time is up.
            torch.distributed.distributed_c10d._abort_process_group()


def _leave_group() -> None:
    """Forgets this process's groups, which the new processes of the next trial wait for it to make anew."""
    if torch.distributed.is_initialized():  # it is not where the first rank failed before
        torch.distributed.destroy_process_group()
    comm._LOCAL_PROCESS_GROUP = None
    comm.create_local_process_group.cache_clear()
    comm._get_global_gloo_group.cache_clear()


def _rank(index: int, world: int, url: str, trial: Trial, hooks: Sequence[HookBase] = ()) -> None:
    on_cpu = trial.config().MODEL.DEVICE == "cpu"
    if not on_cpu:
        torch.cuda.set_device(index + 1)
    torch.distributed.init_process_group(
        "gloo" if on_cpu else "nccl", init_method=url, world_size=world, rank=index + 1
    )
    comm.create_local_process_group(world)
    comm.synchronize()
    _run_one(trial, hooks)
