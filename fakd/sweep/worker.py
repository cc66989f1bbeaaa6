"""What happens in the process of a trial: runs, alone or packed, that report as they go; no Ray here."""

from __future__ import annotations

import errno
import functools
import os
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import HookBase

from fakd.engine import SharedTeacherRun, run, run_side_by_side
from fakd.engine.cli import message_of
from fakd.engine.run_folder import RunFolder

from .events import append, lines_file
from .plan import Trial
from .population import schedule_of
from .spec import METRICS

# A second attempt at these would end the same way.
_FINAL = (FloatingPointError, ValueError, KeyError, FileNotFoundError)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)

Report = Callable[[dict[str, Any]], None]


class TellSweep(HookBase):
    """After every evaluation tells the sweep what was reached; now and then how far the run has come."""

    _PERIOD = 3.0  # seconds

    def __init__(self, file: Path, report: Report):
        """
        Args:
            file: of the run's lines.
            report: called with the metrics after each evaluation but the last, whose caller may end the
                process: the run would not come to write its result.
        """
        self._file, self._report = file, report
        self._seen: Any = None
        self._next = 0.0

    def before_train(self) -> None:
        self._seen = self.trainer.last_results

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if (metrics := self._write(done)) is not None:
            self._report(metrics)
        elif time.monotonic() >= self._next:
            append(self._file, "progress", **self._position(done))
            self._next = time.monotonic() + self._PERIOD

    def after_train(self) -> None:
        self._write(self.trainer.max_iter)  # the last evaluation comes after the last step

    def _write(self, iteration: int) -> dict[str, Any] | None:
        """The metrics of an evaluation that is new, once they are written down."""
        results = self.trainer.last_results
        if results is self._seen:
            return None
        self._seen = results
        metrics = {**self._position(iteration), **_scores(results)}
        append(self._file, "evaluation", **metrics)
        return metrics

    def _position(self, iteration: int) -> dict[str, Any]:
        clock, spent = self.trainer.clock, self.trainer.budget.spent
        return {"iteration": iteration, "seconds": clock.wall_clock(), "spent": spent}


def _scores(results: dict[str, Any]) -> dict[str, float]:
    """Of the first test set; detectron2 leaves its name out when there is only one."""
    first = results.get("sem_seg") or next(iter(results.values()))["sem_seg"]
    return {key: float(first[key]) for key in METRICS}


def run_trials(
    trials: Sequence[Trial], output: Path, report: Report = lambda metrics: None, gpus: int = 0
) -> str:
    """Runs one trial, or several side by side, from wherever they had come to.

    Args:
        trials: of one pack.
        output: folder of the sweep.
        report: see :class:`TellSweep`.
        gpus: devices this process may use; more than one trains on all of them.

    Returns:
        "finished", "failed" or "out_of_memory", as the lines say too.

    Raises:
        Exception: something that another attempt may mend.
    """
    files = {trial: lines_file(output, trial.folder) for trial in trials}
    for trial, file in files.items():
        append(file, "start", **_process(), **_place(trial))
    try:
        errors = _run(trials, files, report, gpus)
    except (torch.OutOfMemoryError, MemoryError) as error:
        return _note(files.values(), "out_of_memory", error)
    except _FINAL as error:
        return _note(files.values(), "failed", error)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        return _note(files.values(), "failed", error)
    except RuntimeError as error:
        if "allocate memory" not in str(error):  # what PyTorch says when the host has no more
            raise
        return _note(files.values(), "out_of_memory", error)
    for trial, problem in errors.items():
        if problem is not None:
            _note([files[trial]], "failed", problem)
    for trial, file in files.items():
        if (result := RunFolder(trial.folder).result()) is not None:
            append(file, "result", result=result, **_process())
    return "failed" if any(errors.values()) else "finished"


def _process() -> dict[str, Any]:
    """Which process this is, and the processor time it has taken since it began, imports included."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "cpu_seconds": time.process_time()}


def _place(trial: Trial) -> dict[str, Any]:
    """Where the report puts the run, and whose pupil it is."""
    cfg = trial.config()
    learns = cfg.MODEL.META_ARCHITECTURE == "Distiller"
    return {
        "pair": trial.pair,
        "run": trial.run,
        "seed": trial.seed,
        "values": dict(trial.values),
        "folder": str(trial.folder),
        "teacher": str(Path(cfg.KD.TEACHER.CONFIG_FILE).parent) if learns else None,
        "schedule": schedule_of(trial),
    }


def _note(files: Any, event: str, error: BaseException) -> str:
    for file in files:
        trace = "".join(traceback.format_exception(error))
        append(file, event, error=message_of(error), traceback=trace)
    return event


def _run(
    trials: Sequence[Trial], files: dict[Trial, Path], report: Report, gpus: int
) -> dict[Trial, BaseException | None]:
    if len(trials) > 1:
        return _run_packed(trials, files, report)
    (trial,) = trials
    arguments = (trial, files[trial], report)
    if gpus > 1:
        _on_several(gpus, arguments)
    else:
        _run_one(*arguments)
    return {trial: None}


def _run_one(trial: Trial, file: Path, report: Report) -> None:
    hook = TellSweep(file, report)
    run(
        trial.config(),
        resume=_has_begun(trial),
        method=trial.run,
        config_file=trial.config_file,
        quiet=True,
        extra_hooks=[hook],
        max_seconds=trial.max_seconds,
    )


def _run_packed(
    trials: Sequence[Trial], files: dict[Trial, Path], report: Report
) -> dict[Trial, BaseException | None]:
    runs = [
        SharedTeacherRun(
            trial.config(),
            _has_begun(trial),
            trial.run,
            trial.config_file,
            [TellSweep(files[trial], report)],
        )
        for trial in trials
    ]
    run_side_by_side(runs)
    return {trial: each.error for trial, each in zip(trials, runs, strict=True)}


def _has_begun(trial: Trial) -> bool:
    return RunFolder(trial.folder).config_file.is_file()


def _on_several(gpus: int, arguments: tuple) -> None:
    """This process is the first rank, so that it can report; the others are its children."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    trial, file, report = arguments
    rank = functools.partial(_rank, world=gpus, url=url, trial=trial, file=file)
    others = torch.multiprocessing.start_processes(rank, nprocs=gpus - 1, join=False, start_method="spawn")
    try:
        _rank(-1, gpus, url, trial, file, report)
        others.join()
    finally:
        for process in others.processes:
            process.kill()
        torch.distributed.destroy_process_group()


def _no_report(metrics: dict[str, Any]) -> None:
    pass


def _rank(index: int, world: int, url: str, trial: Trial, file: Path, report: Report = _no_report) -> None:
    from detectron2.utils import comm

    on_cpu = trial.config().MODEL.DEVICE == "cpu"
    if not on_cpu:
        torch.cuda.set_device(index + 1)
    torch.distributed.init_process_group(
        "gloo" if on_cpu else "nccl", init_method=url, world_size=world, rank=index + 1
    )
    comm.create_local_process_group(world)
    comm.synchronize()
    _run_one(trial, file, report)
