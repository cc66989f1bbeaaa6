"""Runs a sweep with Ray Tune: many trials at a time, on this machine or a cluster."""

from __future__ import annotations

import itertools
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

try:
    import ray
    from ray import tune
    from ray.tune import schedulers
except ImportError as error:
    raise ValueError(
        f"Sweeps need Ray: pip install 'fakd[tune]' (or 'ray[tune]'); --local does without. {error}"
    ) from error

from . import ray_cluster
from .events import events_file, last
from .executor import Executor, Pack, check_folder
from .plan import Plan, make_plan
from .progress import Progress
from .ray_cluster import Options
from .spec import Spec
from .worker import run_trials

_FULL_BYTES = 2**20  # of a disk, below which an error of Ray's needs no other explanation


def run_sweep(spec: Spec, options: Options) -> int:
    """Trains what is not trained yet.

    Returns:
        Exit code: 0; 1 if a trial failed; 130 or 143 if Ctrl-C or SIGTERM stopped it and it can be resumed.

    Raises:
        ValueError, KeyError, OSError: the sweep cannot be run as it is; no trial was started.
    """
    plan = make_plan(spec, options.output)
    check_folder(options.output, spec, plan, options.resume)
    storage = ray_cluster.storage_of(options)
    print("Starting Ray." if not options.address else f"Joining Ray at {options.address}.", flush=True)
    ray_cluster.start(options)
    try:
        ray_cluster.check(spec.resources)
        return _RayExecutor(spec, plan, options.output.resolve(), storage).run()
    finally:
        ray.shutdown()


class _RayExecutor(Executor):
    def __init__(self, spec: Spec, plan: Plan, output: Path, storage: str):
        super().__init__(spec, plan, output)
        self.room = ray_cluster.room(spec.resources, spec.concurrency)
        self.progress = Progress(self.trials, output)
        self._storage = storage
        self._rounds = itertools.count()

    def show(self) -> None:
        self.progress.show_of(self.trials)

    def close(self) -> None:
        self.progress.close()

    def train(
        self, packs: Sequence[Pack], scheduler: str = "none", until: int | None = None, whole: bool = False
    ) -> None:
        resources = ray_cluster.whole(self.spec.resources) if whole else self.spec.resources
        arguments = {"packs": list(packs), "output": self.output, "gpus": int(resources.gpus), "until": until}
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_train, **arguments), {"cpu": resources.cpus, "gpu": resources.gpus}
            ),
            param_space={"pack": tune.grid_search(list(range(len(packs))))},
            tune_config=tune.TuneConfig(
                metric=self.spec.metric,
                mode=self.spec.mode,
                scheduler=build_scheduler(scheduler),
                max_concurrent_trials=self.spec.concurrency or None,
                reuse_actors=False,  # a trial is a process
            ),
            run_config=tune.RunConfig(
                name=f"{next(self._rounds)}_{os.getpid()}",
                storage_path=self._storage,
                failure_config=tune.FailureConfig(max_failures=self.spec.retries),
                callbacks=[ProgressCallback(self, packs, may_stop=scheduler != "none")],
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        except Exception as error:  # such as no room for Ray's own records; the trials of this round end so
            is_full = shutil.disk_usage(self.output).free < _FULL_BYTES
            reason = f"the disk of '{self.output}' is full" if is_full else f"Ray ended: {error}"
            for trial in itertools.chain(*packs):
                self.record_if_open(trial, "failed", error=reason)


def build_scheduler(name: str) -> schedulers.TrialScheduler:
    """Rungs, and the first look, are shares of a trial's budget of iterations or seconds."""
    if name == "asha":
        return schedulers.ASHAScheduler(time_attr="spent", max_t=1, grace_period=1 / 8)  # type: ignore
    if name == "median":
        # No trial waits for others, because every pause would cost a new process.
        return schedulers.MedianStoppingRule("spent", grace_period=1 / 8, min_time_slice=math.inf)  # type: ignore
    return schedulers.FIFOScheduler()


def _train(config: dict[str, Any], packs: list[Pack], output: Path, gpus: int, until: int | None) -> None:
    """The body of a Ray trial."""
    pack = packs[config["pack"]]
    run_trials(pack, output, tune.report, gpus, until)
    end = last(events_file(output, pack[0].folder), "evaluation", "failed", "out_of_memory")
    if end is not None and "spent" in end:  # all is recorded, so the scheduler may stop it
        tune.report({key: value for key, value in end.items() if key != "event"})


class ProgressCallback(tune.Callback):
    """Shows the table, and records trials whose process died or was stopped."""

    def __init__(self, executor: _RayExecutor, packs: Sequence[Pack], may_stop: bool):
        """
        Args:
            packs: trials by the number that Ray's trials have.
            may_stop: a scheduler may end trials early.
        """
        self._executor, self._packs, self._may_stop = executor, packs, may_stop

    def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:
        """Looks at the trials every time Ray does."""
        self._executor.check_signal()
        self._executor.progress.show()

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Records why a process died for good."""
        text = str(trial.get_error() or "its process died").strip().splitlines()
        self._record(trial, "failed", error=text[-1] if text else "its process died")

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Records that a scheduler ended a trial, unless the run said itself how it ended."""
        if self._may_stop:
            self._record(trial, "stopped")

    def _record(self, trial: Any, event: str, **content: Any) -> None:
        for each in self._packs[trial.config["pack"]]:
            self._executor.record_if_open(each, event, **content)
