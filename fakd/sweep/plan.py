"""From a sweep to its trials, every config of which is known to build before the first one starts."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from fakd.config import NO_RECIPE, load_config
from fakd.engine.cli import message_of
from fakd.modeling.build import build_distill_losses, build_segmentor

from .search import Search, axes_of, points
from .spec import Pair, Spec, Teacher

TEACHERS = "teachers"


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

    def with_values(self, values: Mapping[str, Any]) -> Trial:
        """The same run with other values of its keys."""
        opts = list(self.opts)
        for key, value in values.items():
            opts[opts.index(key) + 1] = str(value)
        return dataclasses.replace(self, opts=tuple(opts), values=values)

    def config(self) -> CfgNode:
        """The resolved config, frozen; also registers its datasets and plugins in this process."""
        cfg = load_config(self.config_file, list(self.opts), self.method)
        cfg.freeze()
        return cfg


@dataclass
class Plan:
    """All runs of a sweep: teachers first, because the others need them.

    Attributes:
        teachers: trained here.
        trials: that nothing else changes.
        populations: trials of a method and seed that pbt changes, at their first values.
        searches: methods whose trials Optuna finds.
    """

    teachers: list[Trial] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    populations: list[list[Trial]] = field(default_factory=list)
    searches: list[Search] = field(default_factory=list)


def make_plan(spec: Spec, output: Path) -> Plan:
    """The trials of a sweep, checked.

    Raises:
        ValueError, KeyError, FileNotFoundError: a config does not build, a value is of the wrong type, two
            trials are the same, or there is none; nothing ran.
    """
    output = output.resolve()
    teachers: dict[str, tuple[Trial, Teacher]] = {}
    plan = Plan()
    for name, pair in spec.pairs.items():
        learns = any(method != NO_RECIPE for method in spec.methods)
        if learns and not pair.teacher.config:
            pair = pair.model_copy(update={"teacher": _own_teacher(name, pair)})
        if learns and not pair.teacher.weights:
            _add_teacher(teachers, spec, pair.teacher, output)
        _add_trials(plan, spec, name, pair, output)
    plan.teachers.extend(trial for trial, _ in teachers.values())
    trials = [*plan.trials, *itertools.chain(*plan.populations)]
    ends = [trial for search in plan.searches for trial in search.ends()]
    if not trials and not ends:
        raise ValueError("zero trials: no method of the sweep has a config key that it varies.")
    _refuse_twins(trials)
    _build_all(plan.teachers, trials + ends)
    if spec.scheduler != "none":
        _need_evaluations(trials, spec.scheduler)
    return plan


def _need_evaluations(trials: list[Trial], scheduler: str) -> None:
    for trial in trials:
        cfg = trial.config()
        if not 0 < cfg.TEST.EVAL_PERIOD < cfg.SOLVER.MAX_ITER:
            raise ValueError(
                f"scheduler {scheduler} goes by evaluations in the middle of a run, and '{trial}' has none: "
                f"set TEST.EVAL_PERIOD below SOLVER.MAX_ITER ({cfg.SOLVER.MAX_ITER}) in 'opts'."
            )
        period = cfg.SOLVER.CHECKPOINT_PERIOD
        if scheduler == "pbt" and (period <= 0 or cfg.TEST.EVAL_PERIOD % period):
            raise ValueError(
                f"scheduler pbt needs a checkpoint at every evaluation, and '{trial}' has one every {period} "
                f"iterations: set SOLVER.CHECKPOINT_PERIOD to {cfg.TEST.EVAL_PERIOD} in 'opts'."
            )


def _own_teacher(name: str, pair: Pair) -> Teacher:
    """The teacher that the student's config names."""
    own = load_config(pair.student).KD.TEACHER
    if not own.CONFIG_FILE:
        raise ValueError(
            f"pair '{name}': methods other than '{NO_RECIPE}' need a teacher; name it in the sweep, or in "
            f"'{pair.student}' under KD.TEACHER."
        )
    return Teacher(config=own.CONFIG_FILE, weights=own.WEIGHTS)


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


def _add_trials(plan: Plan, spec: Spec, name: str, pair: Pair, output: Path) -> None:
    for method in spec.methods:
        losses = load_config(pair.student, [], method).KD.LOSSES
        axes = axes_of(spec.keys, losses)
        at = functools.partial(_trials_at, spec, name, pair, method, output)
        if spec.search == "optuna" and axes:
            study = "/".join(filter(None, (name, Path(method).stem)))
            plan.searches.append(Search(study, axes, at, spec, output))
            continue
        found = points(spec, axes)
        if axes and spec.scheduler == "pbt":
            if len(found) < 2:
                raise ValueError(
                    f"scheduler pbt needs two points or more of 'keys'; {method} has {len(found)}."
                )
            plan.populations += map(
                list, zip(*(at(p, f"member{i}") for i, p in enumerate(found)), strict=True)
            )
        else:
            plan.trials += [trial for point in found for trial in at(point)]


def _trials_at(
    spec: Spec, name: str, pair: Pair, method: str, output: Path, point: Mapping[str, Any], label: str = ""
) -> list[Trial]:
    """The trials of a method with these values of the keys, one per seed.

    Args:
        label: in the run's name, in place of the values.
    """
    shared: dict[str, Any] = {**spec.opts, **pair.opts}
    if spec.stop.iterations:
        shared["SOLVER.MAX_ITER"] = spec.stop.iterations
    teacher = _teacher_opts(pair.teacher, output) if method != NO_RECIPE else {}
    words = _words({**shared, **point}, pair.student, method) + _words(teacher)
    labels = [label] if label else [f"{k.rsplit('.')[-1].lower()}={v}" for k, v in point.items()]
    run = re.sub(r"[^\w.=+,-]", "_", "-".join([Path(method).stem, *labels]))
    recipe = _absolute(method) if method.endswith((".yaml", ".yml")) else method
    file = _absolute(pair.student)
    return [
        Trial(
            name,
            run,
            seed,
            recipe,
            file,
            _opts(words, seed, output / (name or "runs") / run / f"seed{seed}"),
            point,
            spec.max_seconds,
        )
        for seed in spec.seeds
    ]


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
