"""From a sweep to its trials, every config of which is known to build before the first one starts."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from fakd.config import NO_RECIPE, load_config
from fakd.engine.cli import message_of
from fakd.modeling.build import build_distill_losses, build_segmentor

from .spec import Pair, Spec, Teacher

TEACHERS = "teachers"
_RANGES = ("uniform", "loguniform")


@dataclass(frozen=True)
class Trial:
    """One run of a sweep, in words that travel to any process.

    Attributes:
        pair, run, seed: its place in the report.
        method: recipe.
        values: what the axes of config keys give it.
        config_file, opts: what its config is made of; OUTPUT_DIR is in ``opts``.
        max_seconds: see :func:`fakd.engine.run`.
    """

    pair: str
    run: str
    seed: int
    method: str
    config_file: str
    opts: tuple[str, ...]
    values: Mapping[str, Any] = field(default_factory=dict, compare=False)
    max_seconds: float = math.inf

    def __str__(self) -> str:
        return " ".join(filter(None, (self.pair, self.run, f"seed {self.seed}")))

    @property
    def folder(self) -> Path:
        return Path(self.opts[self.opts.index("OUTPUT_DIR") + 1])

    @property
    def finished(self) -> bool:
        return (self.folder / "result.json").exists()

    def config(self) -> CfgNode:
        """The resolved config, frozen; also registers its datasets and plugins in this process."""
        cfg = load_config(self.config_file, list(self.opts), self.method)
        cfg.freeze()
        return cfg


@dataclass(frozen=True)
class Plan:
    """All runs of a sweep: teachers first, because the others need them."""

    teachers: list[Trial]
    trials: list[Trial]


def make_plan(spec: Spec, output: Path) -> Plan:
    """The trials of a sweep, checked.

    Raises:
        ValueError, KeyError, FileNotFoundError: a config does not build, a value is of the wrong type, two
            trials are the same, or there is none; nothing ran.
    """
    output = output.resolve()
    teachers: dict[str, tuple[Trial, Teacher]] = {}
    trials: list[Trial] = []
    for name, pair in spec.pairs.items():
        learns = any(method != NO_RECIPE for method in spec.methods)
        if learns and not pair.teacher.config:
            pair = dataclasses.replace(pair, teacher=_own_teacher(name, pair))
        if learns and not pair.teacher.weights:
            _add_teacher(teachers, spec, pair.teacher, output)
        trials += _trials(spec, name, pair, output)
    if not trials:
        raise ValueError("zero trials: no method of the sweep has a config key that it varies.")
    _refuse_twins(trials)
    first = [trial for trial, _ in teachers.values()]
    _build_all(first, trials)
    return Plan(first, trials)


def _own_teacher(name: str, pair: Pair) -> Teacher:
    """The teacher that the student's config names."""
    own = load_config(pair.student).KD.TEACHER
    if not own.CONFIG_FILE:
        raise ValueError(
            f"pair '{name}': methods other than '{NO_RECIPE}' need a teacher; name it in the sweep, or in "
            f"'{pair.student}' under KD.TEACHER."
        )
    return Teacher(own.CONFIG_FILE, own.WEIGHTS)


def _add_teacher(teachers: dict, spec: Spec, teacher: Teacher, output: Path) -> None:
    folder = _teacher_folder(teacher, output)
    if folder.parent.name in teachers:
        if teachers[folder.parent.name][1] != teacher:
            raise ValueError(
                f"two teachers are named '{folder.parent.name}' and differ: rename a config file."
            )
        return
    seed = spec.seeds[0]
    opts = _words({**spec.opts, **teacher.opts}, teacher.config, NO_RECIPE)
    trial = Trial("", "teacher", seed, NO_RECIPE, _absolute(teacher.config), _opts(opts, seed, folder))
    teachers[folder.parent.name] = (trial, teacher)


def _teacher_folder(teacher: Teacher, output: Path) -> Path:
    path = Path(teacher.config)
    return output / TEACHERS / f"{path.parent.name}_{path.stem}" / "trained"


def _trials(spec: Spec, name: str, pair: Pair, output: Path) -> Iterator[Trial]:
    shared: dict[str, Any] = {**spec.opts, **pair.opts}
    if "iterations" in spec.stop:
        shared["SOLVER.MAX_ITER"] = int(spec.stop["iterations"])
    for method in spec.methods:
        teacher = _teacher_opts(pair.teacher, output) if method != NO_RECIPE else {}
        losses = load_config(pair.student, [], method).KD.LOSSES
        for values in _points(spec, losses):
            words = _words({**shared, **values}, pair.student, method) + _words(teacher)
            run = "-".join(
                [Path(method).stem, *(f"{k.rsplit('.')[-1].lower()}={v}" for k, v in values.items())]
            )
            run = re.sub(r"[^\w.=+,-]", "_", run)
            for seed in spec.seeds:
                opts = _opts(words, seed, output / (name or "runs") / run / f"seed{seed}")
                recipe = _absolute(method) if method.endswith((".yaml", ".yml")) else method
                file = _absolute(pair.student)
                yield Trial(name, run, seed, recipe, file, opts, values, spec.max_seconds)


def _teacher_opts(teacher: Teacher, output: Path) -> dict[str, Any]:
    if teacher.weights:
        return {
            "KD.TEACHER.CONFIG_FILE": _absolute(teacher.config),
            "KD.TEACHER.WEIGHTS": _absolute(teacher.weights)
            if "://" not in teacher.weights
            else teacher.weights,
        }
    folder = _teacher_folder(teacher, output)
    # It has just been evaluated as itself, so no pupil needs to do so again.
    return {
        "KD.TEACHER.CONFIG_FILE": folder / "config.yaml",
        "KD.TEACHER.WEIGHTS": folder / "model_final.pth",
        "KD.TEACHER.CHECK_IMAGES": 0,
    }


def _points(spec: Spec, losses: tuple[str, ...]) -> list[dict[str, Any]]:
    """The values of the axes of config keys, for a method with these losses."""
    axes = {
        key: values
        for key, values in spec.keys.items()
        if not re.match(r"KD\.[A-Z]\w*[a-z]\w*\.", key) or key.split(".")[1] in losses
    }
    if not axes:
        return [{}]
    if spec.search == "grid":
        for key, values in axes.items():
            if not isinstance(values, list) or not values:
                raise ValueError(f"keys: {key} needs a list of values in a grid, got {values!r}.")
        return [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]
    draw = random.Random(0)  # a resumed sweep draws the same points
    return [{key: _draw(key, axis, draw) for key, axis in axes.items()} for _ in range(spec.samples)]


def _draw(key: str, axis: Any, draw: random.Random) -> Any:
    if isinstance(axis, list) and axis:
        return draw.choice(axis)
    if isinstance(axis, dict) and len(axis) == 1 and next(iter(axis)) in _RANGES:
        kind, (low, high) = next(iter(axis.items()))
        value = (
            draw.uniform(low, high)
            if kind == "uniform"
            else math.exp(draw.uniform(math.log(low), math.log(high)))
        )
        return float(f"{value:.4g}")
    raise ValueError(
        f"keys: {key} needs a list, or one of {', '.join(_RANGES)} with [low, high]; got {axis!r}."
    )


def _words(values: Mapping[str, Any], config_file: str = "", recipe: str | None = None) -> list[str]:
    """KEY VALUE words; with a config file, each value is held to the type of the key's default."""
    known = load_config(config_file, [], recipe) if config_file else None
    words: list[str] = []
    for key, value in values.items():
        if known is not None:
            value = _cast(key, value, known)
        words += [key, str(value)]
    return words


def _cast(key: str, value: Any, cfg: CfgNode) -> Any:
    node: Any = cfg
    for word in key.split("."):
        if not isinstance(node, CfgNode) or word not in node:
            load_config("", [key, "0"])  # says which key is near
            raise KeyError(f"there is no config key {key} in this config.")
        node = node[word]
    if isinstance(node, float) and type(value) is int:
        return float(value)
    if isinstance(node, (tuple, list)) and isinstance(value, list):
        return tuple(value)
    if node is not None and type(value) is not type(node):
        raise ValueError(
            f"{key} takes a {type(node).__name__} such as {node!r}, but the sweep gives {value!r}, "
            f"a {type(value).__name__}."
        )
    return value


def _opts(words: list[str], seed: int, folder: Path) -> tuple[str, ...]:
    return (*words, "SEED", str(seed), "OUTPUT_DIR", str(folder))


def _absolute(path: str) -> str:
    return str(Path(path).resolve())


def _refuse_twins(trials: list[Trial]) -> None:
    seen: dict[str, Trial] = {}
    for trial in trials:
        cfg = trial.config().clone()
        cfg.defrost()
        cfg.OUTPUT_DIR = cfg.KD.RECIPE = ""
        text = cfg.dump()
        if text in seen:
            raise ValueError(f"The trials '{seen[text]}' and '{trial}' have the same config: drop one.")
        seen[text] = trial


def _build_all(teachers: list[Trial], trials: list[Trial]) -> None:
    """Builds the networks and losses of every trial without memory for their weights."""
    trained_here = {str(trial.folder / "config.yaml"): trial for trial in teachers}
    built = set()
    for trial in [*teachers, *trials]:
        cfg = trial.config()
        key = f"{cfg.MODEL}{cfg.KD}{cfg.DATASETS}"
        if key in built:
            continue
        built.add(key)
        try:
            _build(cfg, trained_here.get(cfg.KD.TEACHER.CONFIG_FILE))
        except Exception as error:  # whatever it is, it would have come up in the middle of the night
            raise ValueError(f"The config of trial '{trial}' does not build: {message_of(error)}") from error


def _build(cfg: CfgNode, teacher_trial: Trial | None) -> None:
    known = DatasetCatalog.list()
    if unknown := [name for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) if name not in known]:
        raise ValueError(f"there is no dataset {', '.join(unknown)}. Known: {', '.join(known)}.")
    cfg = _on_meta(cfg)
    with torch.device("meta"):
        student = build_segmentor(cfg)
        if cfg.MODEL.META_ARCHITECTURE != "Distiller":
            return
        teacher = build_segmentor(_on_meta(_teacher_config(cfg.KD.TEACHER, teacher_trial)))
        build_distill_losses(cfg, student.spec, teacher.spec)
    if teacher.spec.num_classes != student.spec.num_classes:
        raise ValueError(
            f"the student has {student.spec.num_classes} classes, the teacher {teacher.spec.num_classes}."
        )


def _teacher_config(options: CfgNode, trial: Trial | None) -> CfgNode:
    if trial is not None:
        return trial.config()
    if "://" not in options.WEIGHTS and not Path(options.WEIGHTS).is_file():
        raise FileNotFoundError(f"there are no teacher's weights at '{options.WEIGHTS}'.")
    return load_config(options.CONFIG_FILE, [], NO_RECIPE)


def _on_meta(cfg: CfgNode) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE, cfg.MODEL.BACKBONE.PRETRAINED = "meta", "none"
    return cfg
