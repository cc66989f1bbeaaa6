"""The common part of all executors: order, resume, failures and exit code."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any

from fakd.engine import sharing_key
from fakd.engine.run_folder import RunFolder
from fakd.files import atomic_write, read_lines

from .events import append, events_file, is_open, last
from .plan import Plan
from .population import as_scheduled, exploit
from .spec import Spec, continues
from .trial import Trial
from .worker import place_of

# K students gain K (T + S) / (T + K S) in time, with T a teacher's forward pass and S the rest of a student's
# step. With the T of 42 ms and the S of 36 ms in docs/performance.md that is 1.36, 1.67 and 1.88 for 2, 4 and
# 8, and 2.15 at most, while every student adds its memory: four have most of the gain.
_AUTO_PACK = 4
_FREE_BYTES = 2**30  # of the disk, below which no sweep starts
Pack = tuple[Trial, ...]


def check_folder(output: Path, spec: Spec, plan: Plan, resume: bool | None = None) -> None:
    """Checks that a folder belongs to this sweep and can be written.

    Args:
        resume: whether the sweep is in the folder already; None: it may be, with other trials than now.

    Raises:
        ValueError, OSError: it is not so; nothing ran.
    """
    known = output / "sweep.json"
    if resume is None:
        for trial in plan.known:
            if RunFolder(trial.folder).config_file.exists():
                RunFolder(trial.folder).check_usable(as_scheduled(trial).config(), resume=True)
    elif known.exists():
        if not continues(json.loads(known.read_text()), spec.content()):
            raise ValueError(
                f"'{output}' holds a different sweep (see its sweep.json). Choose another --output: only a "
                "grid may be given more, and only methods and seeds."
            )
        if not resume:
            raise ValueError(f"'{output}' holds this sweep already. Continue it with --resume.")
    elif resume:
        raise FileNotFoundError(f"Nothing to resume: '{output}' holds no sweep (no sweep.json).")
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=output):
        pass  # raises where nothing can be written
    free = shutil.disk_usage(output).free
    if free < _FREE_BYTES:
        raise OSError(f"Only {free / 2**20:.0f} MB are free at '{output}'; make room for the checkpoints.")


class Executor(ABC):
    """Runs the trials of a plan that are not finished, in an order that gives each what it needs.

    Attributes:
        room: trials at a time.
    """

    room = 1

    def __init__(self, spec: Spec, plan: Plan, output: Path):
        self.spec, self.plan, self.output = spec, plan, output
        self.trials = [*plan.known, *(trial for search in plan.searches for trial in search.known())]
        self._unwritten: dict[Path, dict[str, Any]] = {}  # events that a full disk refused
        self._signal = 0

    def run(self) -> int:
        """
        Returns:
            Exit code: 0; 1 if a trial failed; 128 + the signal's number if one came, and the sweep can go on.
        """
        with atomic_write(self.output / "sweep.json", "w") as file:
            json.dump(self.spec.content(), file, indent=1)
        try:
            with self._ended_by_signals():
                self._run_all()
        except SystemExit as end:
            self._signal = self._signal or int(end.code or 0) - 128
        self.close()
        return self._exit_code()

    @abstractmethod
    def train(
        self, packs: Sequence[Pack], scheduler: str = "none", until: int | None = None, whole: bool = False
    ) -> None:
        """Runs or resumes trials; the last event of each states its outcome.

        Args:
            packs: trials that share a process.
            scheduler: "asha" or "median" may stop some.
            until: pause after the evaluation at this iteration.
            whole: each gets a device of its own.
        """

    @abstractmethod
    def show(self) -> None:
        """Called when trials were added."""

    @abstractmethod
    def close(self) -> None:
        """Called after the last trial."""

    def _run_all(self) -> None:
        scheduled = self.spec.scheduler in ("asha", "median")
        # Students alone fill the machine while teachers are trained.
        alone = [trial for trial in self.plan.trials if not trial.teacher and not scheduled]
        self._finish([*self.plan.teachers, *alone])
        if scheduled:
            for _, pair in groupby(self.plan.trials, key=lambda trial: trial.pair):
                self._finish(list(pair), self.spec.scheduler)
        else:
            self._finish(self.plan.trials)
        for members in self.plan.populations:
            self._finish_population(members)
        self._finish_searches()

    def _finish(self, trials: Sequence[Trial], scheduler: str = "none", until: int | None = None) -> None:
        """Trains the unfinished ones; those that ran out of memory are retried once, alone on a device."""
        todo = [trial for trial in trials if not self.is_done(trial) and not self._lacks_teacher(trial)]
        self._train(self._packs(todo), scheduler, until)
        again = [trial for trial in todo if self.ended_as(trial, "out_of_memory")]
        self._train([(trial,) for trial in again], until=until, whole=True)
        for trial in again:
            if ended := self.ended_as(trial, "out_of_memory"):
                self.record(trial, "failed", error=ended["error"])

    def _train(self, packs: Sequence[Pack], *args: Any, **options: Any) -> None:
        if packs:
            self.train(packs, *args, **options)
        self.check_signal()

    def _finish_population(self, members: Sequence[Trial]) -> None:
        cfg = members[0].config()
        sign = 1 if self.spec.mode == "max" else -1
        for until in range(cfg.TEST.EVAL_PERIOD, cfg.SOLVER.MAX_ITER, cfg.TEST.EVAL_PERIOD):
            members = [as_scheduled(trial) for trial in members]
            if any(trial.finished or trial.reached > until for trial in members):
                continue  # completed before an interruption
            self._finish([trial for trial in members if trial.reached < until], until=until)
            members = [trial for trial in members if not self.ended_as(trial, "failed")]
            if not members:
                return
            found = {trial: self._evaluation(trial, until) for trial in members}
            exploit(members, {t: sign * v for t, v in found.items() if v is not None}, self.spec.keys)
        self._finish([as_scheduled(trial) for trial in members])

    def _evaluation(self, trial: Trial, iteration: int) -> float | None:
        lines = read_lines(events_file(self.output, trial.folder))
        found = [e for e in lines if e["event"] == "evaluation" and e["iteration"] == iteration]
        return found[-1][self.spec.metric] if found else None

    def _finish_searches(self) -> None:
        searches = self.plan.searches
        count = max(1, self.room // max(1, len(searches) * len(self.spec.seeds)))
        while asked := [trial for search in searches for trial in search.ask(count)]:
            self.trials += [trial for trial in asked if trial not in self.trials]
            self.show()
            self._finish(asked)
            for search in searches:
                search.tell(lambda trial: self.ended_as(trial, "failed") is not None)

    def _packs(self, trials: Sequence[Trial]) -> list[Pack]:
        """Trials that share a teacher's forward pass, some together; the others alone."""
        if not self.spec.packs:
            return [(trial,) for trial in trials]
        groups: dict[str, list[Trial]] = {}
        for number, trial in enumerate(trials):
            groups.setdefault(sharing_key(trial.config()) or str(number), []).append(trial)
        # "auto" leaves no device idle while trials wait in a pack on another one.
        auto = self.spec.pack == "auto"
        size = min(_AUTO_PACK, -(-len(trials) // self.room)) if auto else self.spec.pack
        return [tuple(group[i : i + size]) for group in groups.values() for i in range(0, len(group), size)]

    def _lacks_teacher(self, trial: Trial) -> bool:
        """Whether its teacher failed; then the student is recorded as failed without a try."""
        teachers = [each for each in self.plan.teachers if str(each.folder) == trial.teacher]
        if all(each.finished for each in teachers):
            return False
        ended = self.ended_as(teachers[0], "failed") or {"error": "it is not finished"}
        self.record(trial, "start", **place_of(trial))
        self.record(trial, "failed", error=f"not tried, because its teacher failed: {ended['error']}")
        return True

    def is_done(self, trial: Trial) -> bool:
        """Whether a trial has nothing left to do."""
        return trial.finished or self.ended_as(trial, "stopped") is not None

    def ended_as(self, trial: Trial, event: str) -> dict[str, Any] | None:
        """The last event of an unfinished trial, if it is this one."""
        file = events_file(self.output, trial.folder)
        line = self._unwritten.get(trial.folder) or last(file, "start", "out_of_memory", "failed", "stopped")
        return line if line is not None and line["event"] == event and not trial.finished else None

    def record(self, trial: Trial, event: str, **content: Any) -> None:
        """Records an event for a trial's process; a full disk does not end the sweep."""
        try:
            append(events_file(self.output, trial.folder), event, **content)
        except OSError as error:
            content = {"error": str(error), **content}
            self._unwritten[trial.folder] = {"event": event, **content}

    def record_if_open(self, trial: Trial, event: str, **content: Any) -> None:
        """The same, unless the trial's process has recorded how it ended."""
        if is_open(events_file(self.output, trial.folder)):
            self.record(trial, event, **content)

    @contextlib.contextmanager
    def _ended_by_signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C end the block with SystemExit, wherever they arrive."""

        def stop(number: int, frame: FrameType | None) -> None:
            self._signal = number
            raise SystemExit(128 + number)

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check_signal(self) -> None:
        """
        Raises:
            SystemExit: a signal came, but its exception was caught elsewhere.
        """
        if self._signal:
            raise SystemExit(128 + self._signal)

    def _exit_code(self) -> int:
        failed = [trial for trial in self.trials if self.ended_as(trial, "failed")]
        for trial in failed:
            print(f"failed: {trial}: {self.ended_as(trial, 'failed')['error']}", file=sys.stderr)  # type: ignore
        done = sum(trial.finished for trial in self.trials)
        stopped = sum(self.is_done(trial) for trial in self.trials) - done
        early = f", {stopped} stopped early" if stopped else ""
        count = f"{done} of {len(self.trials)} trials are done{early}, {len(failed)} failed"
        if self._signal or done + stopped + len(failed) < len(self.trials):
            print(f"The sweep was interrupted; {count}. {self.how_to_resume}")
            return 128 + (self._signal or signal.SIGINT)
        print(f"The sweep is finished: {count}.")
        return 1 if failed else 0

    how_to_resume = "The same command with --resume continues it."
