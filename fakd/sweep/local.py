"""Runs a sweep in this process, one run after another, without Ray."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from fakd.errors import message_of

from .events import events_file, is_open, last
from .executor import Executor, Pack, check_folder
from .plan import Plan, make_plan
from .spec import Spec
from .trial import Trial
from .worker import record_error, run_trials


def run_locally(spec: Spec, output: Path, resume: bool | None = None) -> int:
    """Trains what is not trained yet.

    Args:
        resume: whether the sweep is in ``output`` already; None: it may be, and with other trials than now.

    Returns:
        Exit code: 0; 1 if a trial failed; 130 or 143 if Ctrl-C or SIGTERM stopped it and it can be resumed.

    Raises:
        ValueError, KeyError, OSError: the sweep cannot be run as it is; no trial was started.
    """
    if spec.scheduler in ("asha", "median"):
        raise ValueError(f"scheduler {spec.scheduler} compares runs that train at a time, which needs Ray.")
    plan = make_plan(spec, output)
    check_folder(output, spec, plan, resume)
    return _LocalExecutor(spec, plan, output.resolve(), repeats=resume is None).run()


class _LocalExecutor(Executor):
    def __init__(self, spec: Spec, plan: Plan, output: Path, repeats: bool):
        super().__init__(spec, plan, output)
        if repeats:
            self.how_to_resume = "The same command continues it."
        self._counted: dict[Path, int] = {}  # iterations of a run that are on the bar
        # Without a terminal an occasional line is enough.
        interval = 0.2 if sys.stderr.isatty() else 20
        self._bar = tqdm(unit="it", dynamic_ncols=True, mininterval=interval, smoothing=0.05)
        self.show()

    def show(self) -> None:
        self._bar.total = sum(_length(trial) for trial in self.trials)
        for trial in self.trials:
            if self.is_done(trial):
                self._count([trial], None, 0)

    def close(self) -> None:
        self._bar.close()

    def train(
        self, packs: Sequence[Pack], scheduler: str = "none", until: int | None = None, whole: bool = False
    ) -> None:
        for pack in packs:
            gc.collect()  # memory of the previous run must not count for this one
            self._bar.set_description(" + ".join(map(str, pack)))
            start = self._bar.n
            gpus = int(self.spec.resources.gpus)
            try:
                run_trials(
                    pack, self.output, gpus=gpus, until=until, bar=self._bar if len(pack) == 1 else None
                )
            except Exception as error:  # one failed run must not end the others
                self._record_error(pack, error)
            self.check_signal()
            self._count(pack, until, self._bar.n - start)
            for trial in pack:
                self._tell(trial)

    def _record_error(self, pack: Pack, error: Exception) -> None:
        for trial in pack:
            file = events_file(self.output, trial.folder)
            if not is_open(file):  # it has ended before, or by an error of its own
                continue
            try:
                record_error([file], "failed", error)
            except OSError:
                self.record(trial, "failed", error=message_of(error))

    def _count(self, trials: Sequence[Trial], until: int | None, shown: int) -> None:
        """Moves the bar to the end of these runs; what was not run now does not count for the speed.

        Args:
            shown: iterations by which the runs have moved it already.
        """
        missing = -shown
        for trial in trials:
            target = min(until or sys.maxsize, _length(trial))
            missing += target - self._counted.get(trial.folder, 0)
            self._counted[trial.folder] = target
        self._bar.initial += missing
        self._bar.update(missing)

    def _tell(self, trial: Trial) -> None:
        if ended := self.ended_as(trial, "failed") or self.ended_as(trial, "out_of_memory"):
            tqdm.write(f"{trial} failed: {ended['error']}", file=sys.stderr)
        elif trial.finished:
            result = last(events_file(self.output, trial.folder), "result") or {}
            score = result.get("result", {}).get("metrics", {}).get(self.spec.metric)
            tqdm.write(f"{trial}: done, {self.spec.metric} {score}", file=sys.stderr)


def _length(trial: Trial) -> int:
    return 0 if trial.given else trial.config().SOLVER.MAX_ITER
