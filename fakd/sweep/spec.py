"""The keys of a sweep file and their checks."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator
from typing_extensions import Self

from fakd.config import check_recipe, read_paper
from fakd.files import shipped
from fakd.validation import Strict, parse, read_yaml

METRICS = ("mIoU", "mAcc", "aAcc")
RATE = "SOLVER.BASE_LR"
# Keys that a scheduler may change during a run, because no module is built from them.
CHANGEABLE = re.compile(r"SOLVER\.BASE_LR|KD\.\w+\.(LAMBDA|WEIGHT)")
# What may differ between a sweep and its resume, because no trial depends on it.
_FREE = {"resources", "concurrency", "retries", "pack", "paper", "title"}
# Names of pairs become folders beside these.
_FOLDERS = {"teachers", "runs", "lines", "ray", "pictures"}
_RANGES = ("uniform", "loguniform")
_OWN = ("OUTPUT_DIR", "SEED")  # keys whose values come from the sweep itself

Options = dict[str, Any]


class Teacher(Strict):
    """Config file of a teacher and its weights; "" trains it once, for all who learn from it.

    ``opts`` are config keys with values, for its training.
    """

    config: str = ""
    weights: str = ""
    opts: Options = {}


class Pair(Strict):
    """A student's config file, the teacher it learns from, and config keys for this pair alone.

    ``paper`` names the row of the paper's tables that is this pair, such as "ade20k/pspnet_r18". In a file, a
    text is short for ``student``.
    """

    student: str = ""
    teacher: Teacher = Teacher()
    opts: Options = {}
    paper: str = ""


class Resources(Strict):
    """Of one trial: CPU cores, and a fraction of a GPU, one, or several."""

    cpus: Annotated[float, Field(ge=0)] = 1.0
    gpus: Annotated[float, Field(ge=0)] = 0.0

    @field_validator("gpus")
    @classmethod
    def _whole_above_one(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"is {gpus}; above one only whole GPUs can be had")
        return gpus


class Stop(Strict):
    """After how many iterations, or seconds, of training a student ends; all schedules end then."""

    iterations: PositiveInt | None = None
    seconds: PositiveFloat | None = None


class Spec(Strict):
    """A sweep. The keys of the file are these names.

    Attributes:
        base: config file of the student, where ``pairs`` names none.
        teacher: of all pairs that name none.
        pairs: axis of students, or of teachers with students, by name.
        methods: axis of recipes, by name or path; "student" is the student alone.
        keys: axes of config keys: a list of values; in a random search also ``{uniform: [a, b]}`` or
            ``{loguniform: [a, b]}``. A key of one loss, ``KD.<Loss>.<KEY>``, varies only the methods with
            that loss.
        seeds: every trial runs with each.
        opts: config keys with values, for every run, teachers included.
        search: "grid", "random", or "optuna", which chooses by what the earlier points reached.
        samples: number of points of ``keys``, for each method and pair; a grid has its own.
        metric, mode: what is compared, "mIoU", "mAcc" or "aAcc"; "max" or "min".
        scheduler: "none"; "asha" and "median" stop early what falls behind the others of its pair; "pbt" lets
            the last of the points of a method continue from the checkpoint of the first, with a value near
            its.
        stop: see :class:`Stop`; empty leaves it to the config.
        resources: of one trial.
        concurrency: trials at a time; 0: as many as fit.
        pack: students side by side on one teacher: "off", "auto" or a number.
        retries: how often a trial that crashes is tried again.
        paper: project whose ``paper.yaml`` holds what the paper reports for the pairs.
        title: of the report.
    """

    base: str = ""
    teacher: Teacher = Teacher()
    pairs: dict[str, Pair] = {}
    methods: Annotated[tuple[str, ...], Field(strict=False)] = ("student",)
    keys: dict[str, Any] = {}
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(strict=False)] = (0,)
    opts: Options = {}
    search: Literal["grid", "random", "optuna"] = "grid"
    samples: NonNegativeInt = 0
    metric: Literal["mIoU", "mAcc", "aAcc"] = "mIoU"
    mode: Literal["max", "min"] = "max"
    scheduler: Literal["none", "asha", "median", "pbt"] = "none"
    stop: Stop = Stop()
    resources: Resources = Resources()
    concurrency: NonNegativeInt = 0
    pack: Any = "off"
    retries: NonNegativeInt = 2
    paper: str = ""
    title: str = ""

    @property
    def max_seconds(self) -> float:
        """Of training per student."""
        return self.stop.seconds or math.inf

    @property
    def packs(self) -> bool:
        """Whether students may share a process."""
        return self.pack not in ("off", 1)

    def check_recipes(self) -> None:
        """Refuses recipes whose code no student's config names: :func:`fakd.config.check_recipe`."""
        for pair in self.pairs.values():
            opts = [word for item in {**self.opts, **pair.opts}.items() for word in item]
            for method in self.methods:
                check_recipe(method, pair.student, opts)

    def content(self) -> dict[str, Any]:
        """Everything, in plain values as JSON has them."""
        return self.model_dump(mode="json", exclude_none=True)

    @model_validator(mode="before")
    @classmethod
    def _complete_pairs(cls, given: Any) -> Any:
        """Every pair has a student and a teacher: its own, or those of all."""
        if not isinstance(given, Mapping) or not isinstance(given.get("pairs") or {}, Mapping):
            return given
        shared = {"student": given.get("base", ""), "teacher": given.get("teacher", {})}
        pairs: dict[Any, Any] = dict(given.get("pairs") or {"": {}})
        for name, pair in pairs.items():
            if isinstance(pair, str):
                pairs[name] = {**shared, "student": pair}
            elif isinstance(pair, Mapping):
                pairs[name] = {**shared, **pair}
        return {**given, "pairs": pairs}

    @field_validator("pack")
    @classmethod
    def _is_pack(cls, pack: Any) -> Any:
        if not (pack in ("off", "auto") or (type(pack) is int and pack >= 1)):
            raise ValueError(f"is {pack!r}; choose off, auto or a number of students")
        return pack

    @field_validator("pairs")
    @classmethod
    def _are_names(cls, pairs: dict[str, Pair]) -> dict[str, Pair]:
        for name, pair in pairs.items():
            if name and (not re.fullmatch(r"(?!\.)[\w.=+,-]{1,100}", name) or name in _FOLDERS):
                raise ValueError(
                    f"{name!r} cannot name a folder; take letters, digits, _ and -, and none of "
                    f"{', '.join(sorted(_FOLDERS))}"
                )
            if not pair.student:
                where = f"pair '{name}': " if name else ""
                raise ValueError(f"{where}no student; name its config file under 'base' or in the pair")
        return pairs

    @field_validator("methods")
    @classmethod
    def _are_students(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        for method in methods:
            if Path(method).stem == "teacher":
                raise ValueError(f"{method!r} has the name that teachers have in a report; rename it")
        return methods

    @field_validator("keys")
    @classmethod
    def _are_axes(cls, keys: dict[str, Any]) -> dict[str, Any]:
        keys = {key: _with_numbers(axis) for key, axis in keys.items()}
        for key, axis in keys.items():
            if not (isinstance(axis, list) and axis):
                span(key, axis)
        return keys

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        pairs = self.pairs.values()
        for opts in (self.keys, self.opts, self.teacher.opts, *(pair.opts for pair in pairs)):
            if own := [key for key in _OWN if key in opts]:
                raise ValueError(f"{own[0]} is set by the sweep itself; leave it out")
        if not self.methods or not self.seeds:
            raise ValueError("zero trials: 'methods' and 'seeds' need an entry each")
        if self.search != "grid" and (self.samples < 1 or not self.keys):
            raise ValueError(f"zero trials: search '{self.search}' needs 'samples' of 1 or more and 'keys'")
        for key, axis in self.keys.items():
            if self.search == "grid" and not isinstance(axis, list):
                raise ValueError(f"keys: {key} needs a list of values in a grid, got {axis!r}")
        if self.stop.iterations and self.stop.seconds:
            raise ValueError("stop takes either 'iterations' or 'seconds', not both")
        if self.packs and (self.scheduler != "none" or self.stop.seconds or self.resources.gpus > 1):
            raise ValueError(
                "packed students train in step on one device, so 'pack' goes with neither a scheduler, nor "
                "stop by seconds, nor several GPUs. Set pack: off"
            )
        if self.search == "optuna" and self.scheduler != "none":
            raise ValueError("search optuna learns from whole runs; set scheduler: none")
        if self.scheduler == "pbt":
            self._check_population()
        self._check_paper()
        return self

    def _check_population(self) -> None:
        if not self.keys:
            raise ValueError("scheduler pbt needs 'keys' whose values it may change")
        for key in self.keys:
            if not CHANGEABLE.fullmatch(key):
                raise ValueError(
                    f"scheduler pbt cannot change {key} within a run; it can change SOLVER.BASE_LR and "
                    "LAMBDA and WEIGHT of a loss"
                )
        rates = self.keys.get(RATE, [])
        for rate in rates if isinstance(rates, list) else span(RATE, rates)[:2]:
            if not (type(rate) in (int, float) and rate > 0):
                raise ValueError(f"keys: {RATE} is {rate!r}; scheduler pbt needs rates above 0")
        if self.concurrency:
            raise ValueError(
                "with scheduler pbt the points of a method wait for each other, so 'concurrency' cannot hold "
                "any back; use --cpus or --gpus"
            )

    def _check_paper(self) -> None:
        """Before anything is trained, that the report will find the paper's values."""
        rows = {name: pair.paper for name, pair in self.pairs.items() if pair.paper}
        if bool(self.paper) is not bool(rows):
            raise ValueError(
                "'paper' names a project with a paper.yaml, such as FAKD, and each pair's 'paper' a row of "
                "its tables, such as ade20k/pspnet_r18; one needs the other"
            )
        paper = read_paper(self.paper) if rows else None
        for name, row in rows.items():
            if paper is not None and not paper.values(row):
                known = sorted({row for table in paper.tables.values() for row in table})
                raise ValueError(
                    f"pair '{name}': {self.paper}'s paper has no row '{row}'; {', '.join(known)}"
                )


def _with_numbers(axis: Any) -> Any:
    """An axis with numbers where they were written as texts: yaml takes 1e-3, without a point, for one."""
    if isinstance(axis, dict):
        return {kind: _with_numbers(ends) if isinstance(ends, list) else ends for kind, ends in axis.items()}
    return [_number(value) for value in axis] if isinstance(axis, list) else axis


def _number(value: Any) -> Any:
    try:
        number = ast.literal_eval(value) if isinstance(value, str) else value  # as a config reads it
    except (ValueError, TypeError, SyntaxError):
        return value
    return number if type(number) in (int, float) and abs(number) < math.inf else value


def span(key: str, axis: Any) -> tuple[float, float, bool]:
    """Lower and upper end of an axis that is a range, and whether it is logarithmic.

    Raises:
        ValueError: it is none.
    """
    if isinstance(axis, dict) and len(axis) == 1 and next(iter(axis)) in _RANGES:
        kind, ends = next(iter(axis.items()))
        if isinstance(ends, list) and len(ends) == 2 and all(type(end) in (int, float) for end in ends):
            low, high = map(float, ends)
            if (1e-300 if kind == "loguniform" else -math.inf) <= low < high < math.inf:
                return low, high, kind == "loguniform"
    raise ValueError(f"{key} needs a list, or one of {', '.join(_RANGES)} with [low, high]; got {axis!r}")


def options_of(words: Sequence[str]) -> Options:
    """``KEY VALUE ...`` of a command line by key.

    Raises:
        ValueError: a value is missing.
    """
    if len(words) % 2:
        raise ValueError(f"options come in pairs, KEY VALUE; got {len(words)} words: {' '.join(words)}")
    return dict(zip(words[::2], words[1::2], strict=True))


def continues(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether a second sweep, by its ``content()``, trains what a first does; in a grid it may train more."""
    fixed = second["search"] == "grid" and second["scheduler"] == "none"
    growing = {"methods", "seeds"} if fixed else set()
    return _training_part(first, growing) == _training_part(second, growing) and all(
        set(first[key]) <= set(second[key]) for key in growing
    )


def _training_part(content: Mapping[str, Any], without: set[str]) -> dict[str, Any]:
    part = {key: value for key, value in content.items() if key not in _FREE | without}
    pairs = part.get("pairs", {})
    return part | {"pairs": {name: {**pair, "paper": ""} for name, pair in pairs.items()}}


def read_spec(path: str | Path) -> Spec:
    """Reads a sweep file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a key is unknown or a value is not what the key takes; nothing ran.
    """
    return parse_spec(read_yaml(shipped(str(path))), str(path))


def parse_spec(given: Any, source: str = "the sweep") -> Spec:
    """As :func:`read_spec`, of a file's content."""
    return parse(Spec, given, source)
