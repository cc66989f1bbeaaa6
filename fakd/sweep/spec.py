"""What a sweep file may say, and what is wrong with one that says something else."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fakd.config import read_paper

METRICS = ("mIoU", "mAcc", "aAcc")
# What a scheduler may change in the middle of a run; nothing is built from these.
CHANGEABLE = re.compile(r"SOLVER\.BASE_LR|KD\.\w+\.(LAMBDA|WEIGHT)")
# What may differ between a sweep and its resume, because no trial depends on it.
_FREE = ("resources", "concurrency", "retries", "pack", "paper", "title")


@dataclass(frozen=True)
class Teacher:
    """Config file of a teacher and its weights; "" trains it once, for all who learn from it.

    ``opts`` are config keys with values, for its training.
    """

    config: str = ""
    weights: str = ""
    opts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """A student's config file, the teacher it learns from, and config keys for this pair alone.

    ``paper`` names the row of the paper's tables that is this pair, such as "ade20k/pspnet_r18".
    """

    student: str
    teacher: Teacher
    opts: Mapping[str, Any] = field(default_factory=dict)
    paper: str = ""


@dataclass(frozen=True)
class Resources:
    """Of one trial: CPU cores, and a fraction of a GPU, one, or several."""

    cpus: float = 1.0
    gpus: float = 0.0


@dataclass(frozen=True)
class Spec:
    """A sweep. The keys of the file are these names.

    Attributes:
        base: config file of the student, where ``pairs`` names none.
        teacher: of all pairs that name none.
        pairs: axis of students, or of teachers with students, by name.
        methods: axis of recipes, by name or path; "student" is the student without help.
        keys: axes of config keys: a list of values; in a random search also ``{uniform: [a, b]}`` or
            ``{loguniform: [a, b]}``. A key of one loss, ``KD.<Loss>.<KEY>``, varies only the methods with
            that loss.
        seeds: every trial runs with each.
        opts: config keys with values, for every run, teachers included.
        search: "grid", "random", or "optuna", which chooses by what the earlier points reached.
        samples: number of points of ``keys``, for each method and pair; a grid has its own.
        metric, mode: what is compared, "mIoU", "mAcc" or "aAcc"; "max" or "min".
        scheduler: "none"; "asha" and "median" stop early what falls behind the others of its pair; "pbt" lets
            the last of the points of a method go on from the checkpoint of the first, with a value near its.
        stop: {"iterations": n} or {"seconds": s} of training per student; {} leaves it to the config. All
            schedules reach their end when the seconds do.
        resources: of one trial.
        concurrency: trials at a time; 0: as many as fit.
        pack: students side by side on one teacher: "off", "auto" or a number.
        retries: how often a trial that crashes is tried again.
        paper: project whose ``paper.yaml`` holds what the paper reports for the pairs.
        title: of the report.
    """

    base: str = ""
    teacher: Teacher = Teacher()
    pairs: Mapping[str, Pair] = field(default_factory=dict)
    methods: tuple[str, ...] = ("student",)
    keys: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    opts: Mapping[str, Any] = field(default_factory=dict)
    search: str = "grid"
    samples: int = 0
    metric: str = "mIoU"
    mode: str = "max"
    scheduler: str = "none"
    stop: Mapping[str, float] = field(default_factory=dict)
    resources: Resources = Resources()
    concurrency: int = 0
    pack: Any = "off"
    retries: int = 2
    paper: str = ""
    title: str = ""

    @property
    def max_seconds(self) -> float:
        return float(self.stop.get("seconds", math.inf))

    @property
    def packs(self) -> bool:
        return self.pack not in ("off", 1)

    def content(self) -> dict[str, Any]:
        """Everything, in plain values as JSON has them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def trains_as(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two sweeps, by their ``content()``, train the same."""
    return all(_trained(first, key) == _trained(second, key) for key in {*first, *second} - set(_FREE))


def _trained(content: Mapping[str, Any], key: str) -> Any:
    """A part of a sweep's content without what no trial depends on."""
    if key != "pairs":
        return content.get(key)
    return {name: {k: v for k, v in pair.items() if k != "paper"} for name, pair in content[key].items()}


def read_spec(path: str | Path) -> Spec:
    """Reads a sweep file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a key is unknown or a value is not what the key takes; nothing ran.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no sweep file '{path}' (looked from {Path.cwd()}).")
    return parse_spec(yaml.safe_load(Path(path).read_text()), str(path))


def parse_spec(given: Any, source: str = "the sweep") -> Spec:
    """As :func:`read_spec`, of a file's content."""
    given = dict(_known(given, Spec, source))
    given["teacher"] = Teacher(**_known(given.get("teacher", {}), Teacher, f"{source}: teacher"))
    given["resources"] = Resources(**_known(given.get("resources", {}), Resources, f"{source}: resources"))
    pairs = given.pop("pairs", None) or {"": {}}
    for key in ("methods", "seeds"):
        if not isinstance(given.get(key, []), list):
            raise ValueError(f"{source}: {key} must be a list.")
        if key in given:
            given[key] = tuple(given[key])
    spec = Spec(**given)
    spec = dataclasses.replace(spec, pairs={n: _pair(n, p, spec, source) for n, p in pairs.items()})
    _check(spec, source)
    return spec


def _known(given: Any, kind: type, source: str) -> Mapping[str, Any]:
    """``given``, all of whose keys are fields of a dataclass."""
    if not isinstance(given, Mapping):
        raise ValueError(f"{source}: expected keys with values, got {given!r}.")
    names = [f.name for f in dataclasses.fields(kind)]
    for key in given:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, 1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ValueError(f"{source}: there is no key '{key}'.{hint} Known: {', '.join(names)}.")
    return given


def _pair(name: str, given: Any, spec: Spec, source: str) -> Pair:
    """A pair from ``student.yaml`` or ``{student, teacher, opts}``."""
    where = f"{source}: pair '{name}'" if name else source
    given = _known({"student": given} if isinstance(given, str) else given, Pair, where)
    student = given.get("student", spec.base)
    if not student:
        raise ValueError(f"{where}: no student; name its config file under 'base' or in the pair.")
    teacher = spec.teacher
    if "teacher" in given:
        teacher = Teacher(**_known(given["teacher"], Teacher, f"{where}: teacher"))
    return Pair(student, teacher, given.get("opts", {}), given.get("paper", ""))


def _check(spec: Spec, source: str) -> None:
    choices = {
        "search": ("grid", "random", "optuna"),
        "metric": METRICS,
        "mode": ("max", "min"),
        "scheduler": ("none", "asha", "median", "pbt"),
    }
    for key, allowed in choices.items():
        if getattr(spec, key) not in allowed:
            raise ValueError(f"{source}: {key} is '{getattr(spec, key)}'; choose from {', '.join(allowed)}.")
    if not spec.methods or not spec.seeds:
        raise ValueError(f"{source}: zero trials: 'methods' and 'seeds' need an entry each.")
    if any(type(seed) is not int or seed < 0 for seed in spec.seeds):
        raise ValueError(f"{source}: seeds must be numbers from 0 on, got {list(spec.seeds)}.")
    if spec.search != "grid" and (spec.samples < 1 or not spec.keys):
        raise ValueError(
            f"{source}: zero trials: search '{spec.search}' needs 'samples' of 1 or more and 'keys'."
        )
    if set(spec.stop) - {"iterations", "seconds"} or len(spec.stop) > 1:
        raise ValueError(f"{source}: stop takes either 'iterations' or 'seconds', got {dict(spec.stop)}.")
    if not (spec.pack in ("off", "auto") or (type(spec.pack) is int and spec.pack >= 1)):
        raise ValueError(f"{source}: pack is '{spec.pack}'; choose off, auto or a number of students.")
    if spec.packs and (spec.scheduler != "none" or "seconds" in spec.stop or spec.resources.gpus > 1):
        raise ValueError(
            f"{source}: packed students go in step on one device, so 'pack' goes with neither a scheduler, "
            "nor stop by seconds, nor several GPUs. Set pack: off."
        )
    if spec.search == "optuna" and spec.scheduler != "none":
        raise ValueError(f"{source}: search optuna learns from whole runs; set scheduler: none.")
    if spec.scheduler == "pbt":
        _check_population(spec, source)
    _check_paper(spec, source)


def _check_paper(spec: Spec, source: str) -> None:
    """Before anything is trained, that the report will find the paper's values."""
    rows = {name: pair.paper for name, pair in spec.pairs.items() if pair.paper}
    if not isinstance(spec.paper, str) or bool(spec.paper) is not bool(rows):
        raise ValueError(
            f"{source}: 'paper' names a project with a paper.yaml, such as FAKD, and each pair's 'paper' "
            "a row of its tables, such as ade20k/pspnet_r18; one needs the other."
        )
    paper = read_paper(spec.paper) if rows else None
    for name, row in rows.items():
        if paper is not None and not paper.values(row):
            known = sorted({row for table in paper.tables.values() for row in table})
            raise ValueError(
                f"{source}: pair '{name}': {spec.paper}'s paper has no row '{row}'; {', '.join(known)}."
            )


def _check_population(spec: Spec, source: str) -> None:
    if not spec.keys:
        raise ValueError(f"{source}: scheduler pbt needs 'keys' whose values it may change.")
    for key in spec.keys:
        if not CHANGEABLE.fullmatch(key):
            raise ValueError(
                f"{source}: scheduler pbt cannot change {key} within a run; it can change SOLVER.BASE_LR and "
                "LAMBDA and WEIGHT of a loss."
            )
    if spec.concurrency:
        raise ValueError(
            f"{source}: with scheduler pbt the points of a method wait for each other, so 'concurrency' "
            "cannot hold any back; use --cpus or --gpus."
        )
