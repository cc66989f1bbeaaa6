"""Several students trained side by side in one process, on one forward pass of their teacher."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from torch import Tensor, nn

from fakd.data import build_train_loader
from fakd.structures import SegOutput

from .check import check_config
from .device import on_device
from .logs import file_logging, run_logging
from .result import finish_run
from .run_folder import RunFolder
from .signals import signals_deferred, stop_on_signals
from .trainer import Trainer, build_trainer

logger = logging.getLogger(__name__)

# What students must share: the teacher, what they are shown, and when.
_SHARED = (
    "SEED",
    "PLUGINS",
    "DATASETS",
    "INPUT",
    "DATALOADER",
    "SOLVER.IMS_PER_BATCH",
    "SOLVER.ACCUMULATE",
    "SOLVER.MAX_ITER",
    "SOLVER.AMP",
    "KD.TEACHER",
    "MODEL.DEVICE",
    "MODEL.PIXEL_MEAN",
    "MODEL.PIXEL_STD",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES",
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE",
)


@dataclass
class SharedTeacherRun:
    """One of the runs of a pack.

    Attributes:
        cfg: of the run, frozen.
        resume: continue the run in OUTPUT_DIR.
        method, config_file, extra_hooks: see :func:`fakd.engine.run`.
        error: why the run failed, once it has.
    """

    cfg: CfgNode
    resume: bool = False
    method: str = ""
    config_file: str = ""
    extra_hooks: Sequence[HookBase] = ()
    error: Exception | None = field(default=None, init=False)

    @property
    def folder(self) -> RunFolder:
        """Where this run is kept."""
        return RunFolder(self.cfg.OUTPUT_DIR)


def sharing_key(cfg: CfgNode) -> str | None:
    """Runs with the same answer can be packed; None: this run has no teacher to share."""
    if cfg.MODEL.META_ARCHITECTURE != "Distiller":
        return None
    parts = []
    for key in _SHARED:
        node: Any = cfg
        for word in key.split("."):
            node = node[word]
        parts.append(f"{key}={node}")
    return "\n".join(parts)


def run_side_by_side(runs: Sequence[SharedTeacherRun]) -> None:
    """Trains and evaluates all runs; every one ends with the weights it would have alone.

    Each step's random numbers are seeded per student, so none notices the others. A run that fails gets its
    ``error`` and the others go on. Finished ones are left as they are.

    Raises:
        ValueError, KeyError, OSError: the runs cannot share a teacher's forward pass, or a config or a folder
            is not usable.
        torch.OutOfMemoryError: there is no room for so many students.
    """
    parts = {sharing_key(run.cfg) for run in runs}
    if len(parts) != 1 or parts == {None}:
        raise ValueError("These runs cannot be packed: they differ in teacher, data, batch, seed or length.")
    with stop_on_signals(), run_logging("", quiet=True), contextlib.ExitStack() as held:
        for run in runs:
            check_config(run.cfg)
            held.enter_context(run.folder.claimed(run.cfg, run.resume))
            held.enter_context(file_logging(run.cfg.OUTPUT_DIR, functools.partial(_concerns, run)))
        with on_device(runs[0].cfg.MODEL.DEVICE):
            _SideBySide(runs).train()


_at_work: ContextVar[SharedTeacherRun | None] = ContextVar("_at_work", default=None)


def _concerns(run: SharedTeacherRun) -> bool:
    """Whether what happens now is this run's, or all runs'."""
    current = _at_work.get()
    return current is None or current is run


class _SideBySide:
    def __init__(self, runs: Sequence[SharedTeacherRun]):
        self._teacher = SharedTeacher()
        self._batch = _OneBatch()
        self._members: list[tuple[SharedTeacherRun, Trainer]] = []
        for run in runs:
            if run.folder.metrics() is None:
                with _work_of(run):
                    trainer = build_trainer(run.cfg, run.resume, None, run.extra_hooks)
                    self._teacher.serve(trainer.model)
                    self._members.append((run, trainer))

    def train(self) -> None:
        """All students step by step in turn. One that resumes further on waits for the others."""
        if not self._members:
            return
        for run, trainer in self._members:
            with _work_of(run):
                trainer.begin(self._batch)
        try:
            with signals_deferred():
                self._steps()
        finally:
            for run, trainer in self._members:
                with _work_of(run):
                    trainer.end()
        for run, trainer in self._members:
            if run.error is None:
                with _work_of(run):
                    finish_run(trainer, run.folder, run.method, run.config_file, packed=len(self._members))

    def _steps(self) -> None:
        cfg = self._members[0][1].cfg  # as the trainer scales it
        start = min(trainer.start_iter for _, trainer in self._members)
        batches = iter(build_train_loader(cfg, start * cfg.SOLVER.IMS_PER_BATCH))
        for iteration in range(start, cfg.SOLVER.MAX_ITER):
            if all(run.error is not None for run, _ in self._members):
                return
            self._batch.batch = next(batches)
            stopped = None
            for run, trainer in self._members:
                if run.error is None and iteration >= trainer.start_iter:
                    with _work_of(run):
                        try:
                            trainer.step()
                        except SystemExit as stop:  # it is saved; so must the others be
                            stopped = stop
            if stopped is not None:
                raise stopped
            self._teacher.forget()


@contextlib.contextmanager
def _work_of(run: SharedTeacherRun) -> Iterator[None]:
    """What fails in the block is this run's failure, and what is logged there its own."""
    before = _at_work.set(run)
    try:
        yield
    except torch.OutOfMemoryError:
        raise  # the pack is too large, not this run
    except Exception as error:
        logger.exception(f"The run in '{run.cfg.OUTPUT_DIR}' failed; the others of its pack go on.")
        run.error = run.error or error
    finally:
        _at_work.reset(before)


class SharedTeacher(nn.Module):
    """The first student's teacher; its answer to a batch is kept for all who ask about the same batch."""

    def __init__(self) -> None:
        super().__init__()
        self._first: nn.Module | None = None
        self._answers: dict[tuple[int, ...], SegOutput] = {}

    def serve(self, distiller: Any) -> None:
        """Takes the place of the teacher that ``distiller`` was built with."""
        if self._first is None:
            self._first = distiller.get_submodule("teacher")
        distiller.teacher = self

    def forward(self, images: Tensor, batch: list[dict[str, Any]]) -> SegOutput:
        """The teacher's answer to a batch, computed for the first run that asks."""
        key = tuple(map(id, batch))  # ids stay unique, because the images live until forget()
        if key not in self._answers:
            assert self._first is not None  # serve() comes first
            self._answers[key] = self._first(images, batch)
        return self._answers[key]

    def forget(self) -> None:
        """Drops the answers; the next batch is another one."""
        self._answers.clear()


class _OneBatch:
    """A data loader that gives whatever batch was last put into it."""

    batch: list[dict[str, Any]]

    def __iter__(self) -> _OneBatch:
        return self

    def __next__(self) -> list[dict[str, Any]]:
        return self.batch
