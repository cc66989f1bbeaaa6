"""Plans the trials of a sweep; every config is built before the first trial starts."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode

from fakd.config import NO_RECIPE, load_config
from fakd.engine.check import check_config
from fakd.engine.run_folder import RunFolder
from fakd.errors import message_of
from fakd.files import shipped
from fakd.losses import DistillLoss
from fakd.modeling import Distiller, Segmentor
from fakd.modeling.backbone_teacher import backbone_teacher, check_backbone_weights
from fakd.modeling.build import build_distill_losses, build_segmentor
from fakd.modeling.detectron2_teacher import is_detectron2_config, load_detectron2_teacher

from .search import Search, axes_of, points
from .spec import Pair, Spec, Teacher
from .trial import Trial

TEACHERS = "teachers"
TEACHER = "teacher"  # the run of one


@dataclass
class Plan:
    """All runs of a sweep: teachers first, because the others need them.

    Attributes:
        teachers: trained here, or evaluated where their weights are given.
        trials: with fixed values.
        populations: trials of a method and seed that pbt changes, at their first values.
        searches: methods whose trials Optuna finds.
    """

    teachers: list[Trial] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    populations: list[list[Trial]] = field(default_factory=list)
    searches: list[Search] = field(default_factory=list)

    @property
    def known(self) -> list[Trial]:
        """All trials that do not depend on what others reach."""
        return [*self.teachers, *self.trials, *itertools.chain(*self.populations)]


def make_plan(spec: Spec, output: Path) -> Plan:
    """The trials of a sweep, checked.

    Raises:
        ValueError, KeyError, OSError: a config does not build, a value is of the wrong type, two trials are
            the same, or a key concerns none; nothing ran.
    """
    return _Planner(spec, output.resolve()).plan()


class _Planner:
    def __init__(self, spec: Spec, output: Path):
        self._spec, self._output, self._plan = spec, output, Plan()
        self._teachers: dict[str, tuple[Teacher, Trial]] = {}  # by the name of their folder

    def plan(self) -> Plan:
        varied: set[str] = set()
        for name, pair in self._spec.pairs.items():
            for method in self._spec.methods:
                axes = axes_of(self._spec.keys, load_config(pair.student, [], method).KD.LOSSES)
                varied |= axes.keys()
                self._add_trials(name, pair, method, axes)
        if unused := self._spec.keys.keys() - varied:
            raise ValueError(
                f"keys: no method of the sweep has the loss of {', '.join(sorted(unused))}; add one to "
                "'methods', or drop the key."
            )
        self._plan.teachers = [trial for _, trial in self._teachers.values()]
        _check(self._plan, self._spec.scheduler)
        return self._plan

    def _add_trials(self, name: str, pair: Pair, method: str, axes: dict[str, Any]) -> None:
        """Adds the trials of a pair and method, and the teacher they need."""
        spec, run = self._spec, None
        shared: dict[str, Any] = {**spec.opts, **pair.opts}
        if spec.stop.iterations:
            shared["SOLVER.MAX_ITER"] = spec.stop.iterations
        if method != NO_RECIPE:
            teacher = pair.teacher if pair.teacher.config else _own_teacher(name, pair, {**shared, **axes})
            if teacher is not None:
                run = self._teacher_run(teacher, name)
                shared |= _teacher_opts(teacher, run)

        def at(point: Mapping[str, Any], label: str = "") -> list[Trial]:
            """One trial per seed; the label stands in the run's name in place of the values."""
            labels = [label] if label else [f"{k.rsplit('.')[-1].lower()}={v}" for k, v in point.items()]
            run_name = re.sub(r"^\.+|[^\w.=+,-]", "_", "-".join([Path(method).stem, *labels]))
            folder = self._output / (name or "runs") / run_name
            return [
                Trial(
                    pair=name,
                    run=run_name,
                    seed=seed,
                    method=_absolute(method) if method.endswith((".yaml", ".yml")) else method,
                    config_file=_absolute(pair.student),
                    opts=_opts({**shared, **point}, seed, folder / f"seed{seed}"),
                    values=point,
                    max_seconds=spec.max_seconds,
                    teacher=str(run.folder) if run else "",
                )
                for seed in spec.seeds
            ]

        label = "/".join(filter(None, (name, Path(method).stem)))
        if axes and spec.search == "optuna":
            self._plan.searches.append(Search(label, axes, at, spec, self._output))
        elif axes and spec.scheduler == "pbt":
            members = [at(point, f"member{i}") for i, point in enumerate(points(spec, axes))]
            if len(members) < 2:
                raise ValueError(f"scheduler pbt needs two points or more of 'keys'; {label} has one.")
            self._plan.populations += map(list, zip(*members, strict=True))
        else:
            self._plan.trials += [trial for point in points(spec, axes) for trial in at(point)]

    def _teacher_run(self, teacher: Teacher, pair: str) -> Trial | None:
        """The run that trains a teacher or evaluates its weights, the same for all its students.

        Its folder is named after its config; a second teacher of the same config also after the pair.

        Returns:
            None for a network of detectron2's, which only serves as a teacher.
        """
        if teacher.weights and is_detectron2_config(teacher.config):
            return None
        path = Path(teacher.config)
        name = re.sub(r"^\.+", "_", f"{path.parent.name}_{path.stem}")
        for known, trial in self._teachers.values():
            if known == teacher:
                return trial
        if name in self._teachers:
            name = f"{name}-{pair}"
        values = {**self._spec.opts, **teacher.opts}
        if teacher.weights:
            values["MODEL.WEIGHTS"] = _absolute(teacher.weights)
        there = RunFolder(self._output / TEACHERS / name / "trained")
        # One that was begun before a seed was put in front of the others keeps its own.
        seed = there.config()["SEED"] if there.config_file.is_file() else self._spec.seeds[0]
        trial = Trial(
            pair="",
            run=TEACHER,
            seed=seed,
            method=NO_RECIPE,
            config_file=_absolute(teacher.config),
            opts=_opts(values, seed, there.path),
            given=bool(teacher.weights),
        )
        self._teachers[name] = teacher, trial
        return trial


def _own_teacher(name: str, pair: Pair, given: Mapping[str, Any]) -> Teacher | None:
    """The teacher that the student's config names; None for a backbone, which it or ``given`` may name."""
    own = load_config(pair.student).KD.TEACHER
    if given.get("KD.TEACHER.BACKBONE", own.BACKBONE):
        return None
    if not own.CONFIG_FILE:
        where = f"pair '{name}': " if name else ""
        raise ValueError(
            f"{where}methods other than '{NO_RECIPE}' need a teacher; name it in the sweep, or in "
            f"'{pair.student}' under KD.TEACHER; KD.TEACHER.BACKBONE may stand in 'opts'."
        )
    return Teacher(config=own.CONFIG_FILE, weights=own.WEIGHTS)


def _teacher_opts(teacher: Teacher, run: Trial | None) -> dict[str, Any]:
    """The config keys that name a student's teacher."""
    opts = {"KD.TEACHER.RUN": ""}  # which the student's config may name
    if run is None or run.given:
        config, weights = _absolute(teacher.config), _absolute(teacher.weights)
        return opts | {"KD.TEACHER.CONFIG_FILE": config, "KD.TEACHER.WEIGHTS": weights}
    # Its own run has evaluated it, so its students need not check it again.
    return opts | {
        "KD.TEACHER.CONFIG_FILE": str(run.folder / "config.yaml"),
        "KD.TEACHER.WEIGHTS": str(run.folder / "model_final.pth"),
        "KD.TEACHER.CHECK_IMAGES": "0",
    }


def _opts(values: Mapping[str, Any], seed: int, folder: Path) -> tuple[str, ...]:
    words = [str(word) for pair in values.items() for word in pair]
    return (*words, "SEED", str(seed), "OUTPUT_DIR", str(folder))


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(shipped(path)).expanduser().resolve())


def _check(plan: Plan, scheduler: str) -> None:
    """Resolves the configs of all trials and builds each network and loss, without memory for the weights."""
    ends = [trial for search in plan.searches for trial in search.ends()]
    print(f"Checking the configs of {len(plan.known + ends)} trials.", flush=True)
    trained_here = {str(trial.folder / "config.yaml"): trial for trial in plan.teachers}
    built: set[str] = set()
    networks: dict[str, Segmentor] = {}
    seen: dict[str, Trial] = {}
    for trial in plan.known + ends:
        try:
            cfg = trial.config()
            key = f"{cfg.MODEL}{cfg.KD}{cfg.DATASETS}"
            if key not in built:
                built.add(key)
                _build(cfg, trained_here.get(cfg.KD.TEACHER.CONFIG_FILE), networks)
        except Exception as error:  # any error here would otherwise end a trial hours later
            reason = message_of(error).removeprefix("the command line: ")
            raise ValueError(f"The config of trial '{trial}' does not build: {reason}") from error
        if not cfg.DATASETS.TEST and not trial.given:
            raise ValueError(
                f"A sweep compares what its runs reach, and '{trial}' has no test set: name one in "
                "DATASETS.TEST, in its config or in 'opts'."
            )
        if cfg.SOLVER.REFERENCE_WORLD_SIZE:
            raise ValueError(
                f"The config of trial '{trial}' has SOLVER.REFERENCE_WORLD_SIZE, with which batch and length "
                "depend on the number of GPUs, and a sweep says both. Set it to 0."
            )
        if trial in plan.teachers or trial in ends:
            continue
        _check_evaluations(trial, cfg, scheduler)
        if (twin := seen.setdefault(_content(cfg), trial)) is not trial:
            raise ValueError(f"The trials '{twin}' and '{trial}' have the same config: drop one.")
        if (twin := seen.setdefault(cfg.OUTPUT_DIR, trial)) is not trial:
            raise ValueError(f"Two trials are named '{trial}' and differ: rename a recipe's file.")


def _content(cfg: CfgNode) -> str:
    """What the results of a run depend on."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = cfg.KD.RECIPE = ""
    return str(cfg)  # a tenth of the time of dump()


def _check_evaluations(trial: Trial, cfg: CfgNode, scheduler: str) -> None:
    if scheduler == "none":
        return
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


def _build(cfg: CfgNode, teacher_trial: Trial | None, networks: dict[str, Segmentor]) -> None:
    """Builds what a trial trains.

    Args:
        teacher_trial: that trains its teacher.
        networks: by config, those that were built for other trials.
    """
    cfg = _on_meta(cfg)
    check_config(cfg)
    with torch.device("meta"):
        student = _network(cfg, networks)
        if cfg.MODEL.META_ARCHITECTURE == "Distiller":
            teacher = _teacher_on_meta(cfg.KD.TEACHER, teacher_trial, networks)
            losses = build_distill_losses(cfg, student.spec, teacher.spec)
            model = Distiller(student=student, teacher=teacher, losses=losses)
            _check_sizes(cfg, model)


def _network(cfg: CfgNode, networks: dict[str, Segmentor]) -> Segmentor:
    """Of a config on the meta device; alike configs share one, whose building takes most of the time."""
    key = f"{cfg.MODEL}{cfg.INPUT}"
    if key not in networks:
        networks[key] = build_segmentor(cfg)
    return networks[key]


@torch.no_grad()
def _check_sizes(cfg: CfgNode, model: Distiller) -> None:
    """Asks the losses that need a least size, which a run would not before its first step."""
    asked = [loss for loss in model.losses.values() if type(loss).check_size is not DistillLoss.check_size]
    if asked:
        image = torch.empty(1, len(cfg.MODEL.PIXEL_MEAN), *cfg.INPUT.CROP.SIZE)
        height, width = model.student.eval().encode(image).logits.shape[-2:]
        for loss in asked:
            loss.check_size(height, width)


def _teacher_on_meta(options: CfgNode, trial: Trial | None, networks: dict[str, Segmentor]) -> Segmentor:
    if options.BACKBONE:
        check_backbone_weights(options.BACKBONE, options.WEIGHTS)
        return backbone_teacher(options.BACKBONE)
    if is_detectron2_config(options.CONFIG_FILE):
        _check_file(options.WEIGHTS)
        with torch.device("cpu"):  # means and deviations are read of it
            return load_detectron2_teacher(options.CONFIG_FILE, "", "cpu")
    return _network(_on_meta(_teacher_config(options, trial)), networks)


def _teacher_config(options: CfgNode, trial: Trial | None) -> CfgNode:
    if trial is not None:
        return trial.config()
    _check_file(options.WEIGHTS)
    return load_config(options.CONFIG_FILE, [], NO_RECIPE)


def _check_file(weights: str) -> None:
    if "://" not in weights and not Path(weights).is_file():
        raise FileNotFoundError(f"there are no teacher's weights at '{weights}'.")


def _on_meta(cfg: CfgNode) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE, cfg.MODEL.BACKBONE.PRETRAINED = "meta", "none"
    return cfg
