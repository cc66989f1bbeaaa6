"""Runs the trials of a sweep with Ray Tune."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

try:
    import ray
    from ray import tune
    from ray.tune import schedulers
except ImportError as error:
    raise ValueError(f"Sweeps need Ray: pip install 'fakd[tune]' (or 'ray[tune]'). {error}") from error

from fakd.files import atomic_write

from . import ray_cluster as machine
from .events import append, is_open, last, lines_file
from .plan import Plan, Trial, make_plan
from .population import go_on, schedule_of, snapshot
from .progress import Progress
from .ray_cluster import Options
from .search import rounded
from .spec import Resources, Spec, span, trains_as
from .worker import run_trials

# K students gain K (T + S) / (T + K S) in time, with T a teacher's forward pass and S the rest of a student's
# step. With the T of 42 ms and the S of 36 ms in docs/performance.md that is 1.36, 1.67 and 1.88 for 2, 4 and
# 8, and 2.15 at most, while every student adds its memory: four have most of the gain.
_AUTO_PACK = 4
_FREE_BYTES = 2**30  # of the disk, below which no sweep starts
Pack = tuple[Trial, ...]


def run_sweep(spec: Spec, options: Options) -> int:
    """Trains what is not trained yet.

    Returns:
        Exit code: 0; 1 if a trial failed; 130 if the sweep was interrupted and can be resumed.

    Raises:
        ValueError, KeyError, OSError: the sweep cannot be run as it is; no trial was started.
    """
    plan = make_plan(spec, options.output)
    _admit(spec, options)
    storage = machine.storage_of(options)
    machine.start(options)
    try:
        machine.check(spec.resources)
        with atomic_write(options.output / "sweep.json", "w") as file:
            json.dump(spec.content(), file, indent=1)
        return _Sweep(spec, plan, options.output.resolve(), storage).run()
    finally:
        ray.shutdown()


def _admit(spec: Spec, options: Options) -> None:
    """Checks that the folder belongs to this sweep and can be written."""
    known = options.output / "sweep.json"
    if known.exists():
        if not trains_as(json.loads(known.read_text()), spec.content()):
            raise ValueError(
                f"'{options.output}' holds a different sweep (see its sweep.json). Choose another --output."
            )
        if not options.resume:
            raise ValueError(f"'{options.output}' holds this sweep already. Continue it with --resume.")
    elif options.resume:
        raise FileNotFoundError(f"Nothing to resume: '{options.output}' holds no sweep (no sweep.json).")
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=options.output):
        pass  # raises where nothing can be written
    free = shutil.disk_usage(options.output).free
    if free < _FREE_BYTES:
        raise OSError(
            f"Only {free / 2**20:.0f} MB are free at '{options.output}'; make room for the checkpoints."
        )


class _Sweep:
    def __init__(self, spec: Spec, plan: Plan, output: Path, storage: str):
        self._spec, self._plan, self._output, self._storage = spec, plan, output, storage
        self._room = machine.room(spec.resources, spec.concurrency)
        asked = [trial for search in plan.searches for trial in search.known()]
        self._trials = [*plan.teachers, *plan.trials, *itertools.chain(*plan.populations), *asked]
        self._progress = Progress(self._trials, self._output)
        self._rounds = itertools.count()

    def run(self) -> int:
        for trials, scheduler in self._stages():
            if not self._finish(trials, scheduler):
                break  # Ctrl-C
        self._progress.close()
        return self._exit_code()

    def _stages(self) -> Iterator[tuple[Sequence[Trial], schedulers.TrialScheduler]]:
        """Trials that run together, and what may end or change them."""
        yield self._plan.teachers, schedulers.FIFOScheduler()
        if self._spec.scheduler in ("asha", "median"):
            for _, pair in itertools.groupby(self._plan.trials, key=lambda trial: trial.pair):
                yield list(pair), stopper(self._spec.scheduler)
        else:
            yield self._plan.trials, schedulers.FIFOScheduler()
        for members in self._plan.populations:
            yield members, _breeder(self._spec, members)
        searches = self._plan.searches
        count = max(1, self._room // max(1, len(searches) * len(self._spec.seeds)))
        while asked := [trial for search in searches for trial in search.ask(count)]:
            self._trials += [trial for trial in asked if trial not in self._trials]
            self._progress.show_of(self._trials)
            yield asked, schedulers.FIFOScheduler()
            for search in searches:
                search.tell(lambda trial: self._ended_as(trial, "failed") is not None)

    def _finish(self, trials: Sequence[Trial], scheduler: schedulers.TrialScheduler) -> bool:
        """Trains what of these trials is open; False when somebody interrupted it."""
        todo = [trial for trial in trials if not self._is_done(trial)]
        self._round(_packs(todo, self._spec, self._room), self._spec.resources, scheduler)
        if any(is_open(lines_file(self._output, trial.folder)) for trial in todo):
            return False
        # What ran out of memory gets one more chance with all a device has.
        again = [trial for trial in todo if self._ended_as(trial, "out_of_memory")]
        whole = machine.whole(self._spec.resources)
        self._round([(trial,) for trial in again], whole, schedulers.FIFOScheduler())
        for trial in again:
            if ended := self._ended_as(trial, "out_of_memory"):
                append(lines_file(self._output, trial.folder), "failed", error=ended["error"])
        return not any(is_open(lines_file(self._output, trial.folder)) for trial in again)

    def _is_done(self, trial: Trial) -> bool:
        return trial.finished or self._ended_as(trial, "stopped") is not None

    def _ended_as(self, trial: Trial, event: str) -> dict[str, Any] | None:
        line = last(lines_file(self._output, trial.folder), "start", "out_of_memory", "failed", "stopped")
        return line if line is not None and line["event"] == event and not trial.finished else None

    def _exit_code(self) -> int:
        failed = [trial for trial in self._trials if self._ended_as(trial, "failed")]
        for trial in failed:
            print(f"failed: {trial}: {self._ended_as(trial, 'failed')['error']}")  # type: ignore[index]
        if all(self._is_done(trial) or trial in failed for trial in self._trials):
            return 1 if failed else 0
        print("The sweep was interrupted; the same command with --resume continues it.")
        return 130

    def _round(
        self, packs: Sequence[Pack], resources: Resources, scheduler: schedulers.TrialScheduler
    ) -> None:
        if not packs:
            return
        breeds = isinstance(scheduler, schedulers.PopulationBasedTraining)
        may_stop = not breeds and type(scheduler) is not schedulers.FIFOScheduler
        arguments = {
            "packs": list(packs),
            "output": self._output,
            "gpus": int(resources.gpus),
            "keeps_snapshots": breeds,
        }
        points = [{"pack": i, "values": schedule_of(pack[0])[-1]["values"]} for i, pack in enumerate(packs)]
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_train, **arguments), {"cpu": resources.cpus, "gpu": resources.gpus}
            ),
            param_space={"point": tune.grid_search(points)},
            tune_config=tune.TuneConfig(
                metric=self._spec.metric,
                mode=self._spec.mode,
                scheduler=scheduler,
                max_concurrent_trials=self._spec.concurrency or None,
                reuse_actors=False,  # a trial is a process
                # Which pack a trial is must outlive that pbt gives it the point of another one.
                trial_name_creator=lambda trial: str(trial.config["point"]["pack"]),
            ),
            run_config=tune.RunConfig(
                name=f"{next(self._rounds)}_{os.getpid()}",
                storage_path=self._storage,
                failure_config=tune.FailureConfig(max_failures=self._spec.retries),
                # One that a trial may be about to go on from, one newer, one being written.
                checkpoint_config=tune.CheckpointConfig(num_to_keep=3),
                callbacks=[_Watch(packs, self._output, self._progress, may_stop)],
                verbose=0,
            ),
        )
        tuner.fit()


def _packs(trials: Sequence[Trial], spec: Spec, room: int) -> list[Pack]:
    """Trials that share a teacher's forward pass, some together; the others alone."""
    if not spec.packs:
        return [(trial,) for trial in trials]
    from fakd.engine import sharing_key

    groups: dict[str, list[Trial]] = {}
    for number, trial in enumerate(trials):
        groups.setdefault(sharing_key(trial.config()) or str(number), []).append(trial)
    # "auto" leaves no device idle whose trials would wait in the pack of another one.
    size = min(_AUTO_PACK, -(-len(trials) // room)) if spec.pack == "auto" else spec.pack
    return [tuple(group[i : i + size]) for group in groups.values() for i in range(0, len(group), size)]


def stopper(name: str) -> schedulers.TrialScheduler:
    """Rungs, and the first look, are shares of a trial's budget of iterations or seconds."""
    if name == "asha":
        return schedulers.ASHAScheduler(time_attr="spent", max_t=1, grace_period=1 / 8)  # type: ignore
    # Nobody is to wait for others, which would cost a new process each time.
    return schedulers.MedianStoppingRule("spent", grace_period=1 / 8, min_time_slice=math.inf)  # type: ignore


def _breeder(spec: Spec, members: Sequence[Trial]) -> schedulers.TrialScheduler:
    """At every evaluation the last quarter goes on from the first, whose values it takes and varies."""
    random.seed(members[0].seed)  # where the scheduler takes its numbers from
    np.random.seed(members[0].seed)
    ranges = {key: span(key, spec.keys[key]) for key in members[0].values if isinstance(spec.keys[key], dict)}

    def within(config: dict[str, Any]) -> dict[str, Any]:
        values = config["point"]["values"]
        for key, (low, high, _) in ranges.items():
            values[key] = rounded(min(max(values[key], low), high))
        return config

    axes = {
        key: (tune.loguniform if ranges[key][2] else tune.uniform)(*ranges[key][:2])
        if key in ranges
        else spec.keys[key]
        for key in members[0].values
    }
    return InStep(
        time_attr="iteration",
        perturbation_interval=members[0].config().TEST.EVAL_PERIOD,
        hyperparam_mutations={"point": {"values": axes}},
        custom_explore_fn=within,
        log_config=False,  # the run's folder has it
        synch=True,  # so that what happens does not depend on who is faster
    )


def _train(config: dict[str, Any], packs: list[Pack], output: Path, gpus: int, keeps_snapshots: bool) -> None:
    """The body of a Ray trial."""
    pack = packs[int(tune.get_context().get_trial_name())]
    if not keeps_snapshots:
        run_trials(pack, output, tune.report, gpus)
        end = last(lines_file(output, pack[0].folder), "evaluation", "failed", "out_of_memory")
        if end is not None and "spent" in end:  # with all written down, it may be stopped
            tune.report({key: value for key, value in end.items() if key != "event"})
        return
    (trial,) = pack
    folder = trial.folder / "snapshot"  # Ray copies it, and ends this process if the trial has to wait
    found = tune.get_checkpoint()
    with found.as_directory() if found is not None else contextlib.nullcontext() as theirs:
        trial = go_on(trial, config["point"]["values"], theirs and Path(theirs))

    def report(metrics: dict[str, Any]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        snapshot(trial, folder)
        tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))

    run_trials([trial], output, report, gpus)
    shutil.rmtree(folder, ignore_errors=True)


class InStep(schedulers.PopulationBasedTraining):
    """Ray's, whose members would wait for ever for one that has ended while they wait."""

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict) -> None:
        super().on_trial_complete(tune_controller, trial, result)
        self._wait_without(trial, tune_controller)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_error(tune_controller, trial)
        if trial.status != trial.ERROR:  # that it has in a retry, which will come back
            self._wait_without(trial, tune_controller)

    def _wait_without(self, gone: Any, tune_controller: Any) -> None:
        others = [
            self._trial_state[trial] for trial in tune_controller.get_live_trials() if trial is not gone
        ]
        if others and all(state.last_train_time >= self._next_perturbation_sync for state in others):
            self._next_perturbation_sync += self._perturbation_interval


class _Watch(tune.Callback):
    """Shows the table, and notes what a trial whose process is gone cannot."""

    def __init__(self, packs: Sequence[Pack], output: Path, progress: Progress, may_stop: bool):
        self._packs, self._output, self._progress, self._may_stop = packs, output, progress, may_stop

    def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:
        self._progress.show()

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        text = str(trial.get_error() or "its process died").strip().splitlines()
        self._note(trial, "failed", error=text[-1] if text else "its process died")

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        if self._may_stop:
            self._note(trial, "stopped")  # unless the run said itself how it ended

    def _note(self, trial: Any, event: str, **content: Any) -> None:
        for each in self._packs[int(str(trial))]:
            file = lines_file(self._output, each.folder)
            if is_open(file):
                append(file, event, **content)
