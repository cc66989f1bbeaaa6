"""Runs the trials of a sweep with Ray Tune. The only module that imports ray."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # paths in configs start from where the user is
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")  # else anything else on the machine comes first
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # the runs write their own
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

try:
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
except ImportError as error:
    raise ValueError(f"Sweeps need Ray: pip install 'fakd[tune]' (or 'ray[tune]'). {error}") from error

from fakd.checkpoint import atomic_write

from .lines import append, is_open, last, lines_file
from .plan import Plan, Trial, make_plan
from .progress import Progress
from .spec import Resources, Spec, trains_as
from .trial import run_trials

_OBJECT_STORE = 100 * 2**20  # bytes; only metrics travel through it
_FREE_BYTES = 2**30  # of the disk, below which no sweep starts
Pack = tuple[Trial, ...]


@dataclasses.dataclass(frozen=True)
class Options:
    """Where and how a sweep runs.

    Attributes:
        output: folder of the sweep; on a cluster all nodes must see it.
        resume: go on with the sweep in ``output``.
        address: of a running Ray cluster; "" starts one on this machine that nobody else can reach.
        storage: where Ray keeps its own records, a shared path or a URI; "" for ``output/ray``.
        dashboard: start Ray's dashboard, on the loopback interface.
        cpus, gpus: of the machine, for a Ray started here; None: all there are.
    """

    output: Path
    resume: bool = False
    address: str = ""
    storage: str = ""
    dashboard: bool = False
    cpus: int | None = None
    gpus: int | None = None


def run_sweep(spec: Spec, options: Options) -> int:
    """Trains what is not trained yet.

    Returns:
        Exit code: 0; 1 if a trial failed; 130 if the sweep was interrupted and can be resumed.

    Raises:
        ValueError, KeyError, OSError: the sweep cannot be run as it is; no trial was started.
    """
    plan = make_plan(spec, options.output)
    _admit(spec, options)
    _start_ray(options)
    try:
        _check_resources(spec.resources)
        _remember(spec, options.output)
        return _Sweep(spec, plan, options).run()
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


def _remember(spec: Spec, output: Path) -> None:
    with atomic_write(output / "sweep.json", "w") as file:
        json.dump(spec.content(), file, indent=1)


def _start_ray(options: Options) -> None:
    shared: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    # A worker's own folder is elsewhere, and what the driver can import, it must be able to import.
    paths = {"env_vars": {"RAY_CHDIR_TO_TRIAL_DIR": "0"}}
    if options.address:
        ray.init(address=options.address, runtime_env=paths, **shared)
        return
    _stay_on_loopback()
    ray.init(
        address="local",
        num_cpus=options.cpus,
        num_gpus=options.gpus,
        include_dashboard=options.dashboard,
        dashboard_host="127.0.0.1",
        object_store_memory=_OBJECT_STORE,
        _node_ip_address="127.0.0.1",
        runtime_env=paths,
        **shared,
    )


def _stay_on_loopback() -> None:
    """Ray takes 127.0.0.1 for an address others may not reach only where it believes clusters impossible."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # for the processes it starts
    ray._private.ray_constants.ENABLE_RAY_CLUSTER = False  # for this one, which has read it already


def _check_resources(wanted: Resources) -> None:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for kind, label, amount in (("GPU", "GPUs", wanted.gpus), ("CPU", "CPU cores", wanted.cpus)):
        most = max((node.get(kind, 0) for node in nodes), default=0)
        if amount > most:
            raise ValueError(
                f"A trial asks for {amount:g} {label}, but no machine here has more than {most:g}. "
                "Lower 'resources' in the sweep file."
            )
    if wanted.gpus > 1 and wanted.gpus != int(wanted.gpus):
        raise ValueError(f"resources: gpus is {wanted.gpus}; above one only whole GPUs can be had.")


class _Sweep:
    def __init__(self, spec: Spec, plan: Plan, options: Options):
        self._spec, self._plan, self._options = spec, plan, options
        self._output = options.output.resolve()
        self._progress = Progress([*plan.teachers, *plan.trials], self._output)

    def run(self) -> int:
        whole = dataclasses.replace(self._spec.resources, gpus=max(1.0, self._spec.resources.gpus))
        if self._spec.resources.gpus == 0:
            whole = Resources(cpus=max(n["Resources"].get("CPU", 0) for n in ray.nodes() if n["Alive"]))
        for name, stage in (("teachers", self._plan.teachers), ("trials", self._plan.trials)):
            todo = [trial for trial in stage if not self._is_done(trial)]
            self._round(_packs(todo, self._spec.pack_size), self._spec.resources, name)
            if any(is_open(lines_file(self._output, trial.folder)) for trial in todo):
                break  # Ctrl-C
            # What ran out of memory gets one more chance with all a device has.
            again = [trial for trial in todo if self._ended_as(trial, "out_of_memory")]
            self._round([(trial,) for trial in again], whole, f"{name}_again")
            for trial in again:
                if ended := self._ended_as(trial, "out_of_memory"):
                    append(lines_file(self._output, trial.folder), "failed", error=ended["error"])
        self._progress.close()
        return self._exit_code()

    def _is_done(self, trial: Trial) -> bool:
        return trial.finished or self._ended_as(trial, "stopped") is not None

    def _ended_as(self, trial: Trial, event: str) -> dict[str, Any] | None:
        line = last(lines_file(self._output, trial.folder), "start", "out_of_memory", "failed", "stopped")
        return line if line is not None and line["event"] == event and not trial.finished else None

    def _exit_code(self) -> int:
        everything = [*self._plan.teachers, *self._plan.trials]
        failed = [t for t in everything if self._ended_as(t, "failed")]
        for trial in failed:
            print(f"failed: {trial}: {self._ended_as(trial, 'failed')['error']}")  # type: ignore[index]
        if all(self._is_done(t) or t in failed for t in everything):
            return 1 if failed else 0
        print("The sweep was interrupted; the same command with --resume continues it.")
        return 130

    def _round(self, packs: Sequence[Pack], resources: Resources, name: str) -> None:
        if not packs:
            return
        storage = self._options.storage or str(self._output / "ray")
        arguments = {"packs": list(packs), "output": self._output, "gpus": int(resources.gpus)}
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_train, **arguments), {"cpu": resources.cpus, "gpu": resources.gpus}
            ),
            param_space={"pack": tune.grid_search(list(range(len(packs))))},
            tune_config=tune.TuneConfig(
                metric=self._spec.metric,
                mode=self._spec.mode,
                scheduler=_scheduler(self._spec, packs[0][0]),
                max_concurrent_trials=self._spec.concurrency or None,
                reuse_actors=False,  # a trial is a process
            ),
            run_config=tune.RunConfig(
                name=f"{name}_{os.getpid()}",
                storage_path=storage,
                failure_config=tune.FailureConfig(max_failures=self._spec.retries),
                checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
                callbacks=[_Watch(packs, self._output, self._progress, self._spec.scheduler != "none")],
                verbose=0,
            ),
        )
        tuner.fit()


def _packs(trials: Sequence[Trial], size: int) -> list[Pack]:
    """Trials that share a teacher's forward pass, up to ``size`` together; the others alone."""
    if size == 1:
        return [(trial,) for trial in trials]
    from fakd.engine import shared_part

    groups: dict[str, list[Trial]] = {}
    for number, trial in enumerate(trials):
        groups.setdefault(shared_part(trial.config()) or str(number), []).append(trial)
    return [tuple(group[i : i + size]) for group in groups.values() for i in range(0, len(group), size)]


def _scheduler(spec: Spec, trial: Trial) -> TrialScheduler:
    if spec.scheduler == "asha":
        longest = trial.config().SOLVER.MAX_ITER
        return ASHAScheduler(time_attr="iteration", max_t=longest, grace_period=max(1, longest // 8))
    if spec.scheduler == "median":
        return MedianStoppingRule(time_attr="iteration", grace_period=1)
    return FIFOScheduler()


def _train(config: dict[str, Any], packs: list[Pack], output: Path, gpus: int) -> None:
    """The body of a Ray trial."""
    pack = packs[config["pack"]]

    def report(metrics: dict[str, Any], folder: Path) -> None:
        # The run's folder keeps its own state, which is exact, so Ray's checkpoint only points there.
        with tempfile.TemporaryDirectory() as pointer:
            Path(pointer, "run_folder.txt").write_text(str(folder))
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(pointer))

    run_trials(pack, output, report, gpus)


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
        for each in self._packs[trial.config["pack"]]:
            file = lines_file(self._output, each.folder)
            if is_open(file):
                append(file, event, **content)
