"""A distillation in one call, from names, configs or networks."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
import yaml
from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng

from fakd.checkpoint import load_teacher
from fakd.config import NO_RECIPE, load_config
from fakd.config.setup import flat_keys
from fakd.data.datasets.custom import read_custom
from fakd.modeling import Distiller, Segmentor
from fakd.modeling.build import build_distill_losses, build_segmentor
from fakd.modeling.cached_teacher import CachedTeacher
from fakd.modeling.distiller import find_teacher

from .main import run
from .run_folder import numbered_folder

# What a config says of the method it was made for, and of its own run.
_OF_ITS_OWN = (
    *("KD.LOSSES", "KD.RECIPE", "MODEL.META_ARCHITECTURE", "OUTPUT_DIR", "PLUGINS"),
    *("KD.TEACHER.RUN", "KD.TEACHER.CONFIG_FILE", "KD.TEACHER.WEIGHTS", "KD.TEACHER.MIOU"),
)

Network: TypeAlias = str | os.PathLike[str] | CfgNode | Segmentor


def distill(
    student: Network,
    teacher: Network,
    data: str | os.PathLike[str] | Sequence[str] | None = None,
    *,
    method: str = "fakd",
    output: str | os.PathLike[str] = "",
    opts: Sequence[Any] = (),
    resume: bool = False,
) -> Path:
    """Trains a student with the help of a teacher and evaluates it, as ``fakd train`` does.

    Args:
        student: a config file or the name of one that comes with the package, a config, or a network.
        teacher: the folder of a run that trained it, a config file (``opts`` then has KD.TEACHER.WEIGHTS), a
            config (its MODEL.WEIGHTS are read), or a network.
        data: a yaml that describes your own data, or the names of a training and a test set; None: as the
            student's config says.
        method: a recipe by name or path.
        output: folder of the run; default one of its own in ``output``.
        opts: ``[KEY, VALUE, ...]``, config keys.
        resume: go on with the run in ``output``; a finished one is left as it is.

    Returns:
        The folder, which :class:`fakd.predict.Predictor` takes. One that a network was given to knows its
        weights but no config of it: load ``model_final.pth`` into the network.

    Raises:
        ValueError, OSError, KeyError, FloatingPointError, SystemExit: see :func:`fakd.engine.run`; and
            ValueError, the method has no losses or teaches no student.
    """
    if method == NO_RECIPE:
        raise ValueError("method 'student' has no teacher: train it with fakd.run, or choose another.")
    words = [*_source(student), *_teacher_keys(teacher), *_data_keys(data), *opts]
    file = os.fspath(student) if isinstance(student, str | os.PathLike) else ""
    cfg = load_config(file, words, method)
    if "OUTPUT_DIR" not in words:
        own = cfg.OUTPUT_DIR if file else f"output/distilled_{Path(method).stem}"
        cfg.OUTPUT_DIR = os.fspath(output) or numbered_folder(own, resume)
    cfg.freeze()
    model = _given_networks(cfg, student, teacher)
    run(cfg, resume, config_file=file, model=model)
    return Path(cfg.OUTPUT_DIR)


def _source(student: Network) -> list[Any]:
    """What a network says of its config, or a config of itself, less its own method and teacher."""
    if isinstance(student, Segmentor):
        head = ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", student.spec.num_classes]
        return ["INPUT.FORMAT", student.input_format, *head]
    if not isinstance(student, CfgNode):
        return []
    plugins = list(student.PLUGINS)
    first: list[Any] = ["PLUGINS", plugins] if plugins else []
    known = flat_keys(yaml.safe_load(load_config(opts=first).dump()))
    changed = {
        key: value
        for key, value in flat_keys(yaml.safe_load(student.dump())).items()
        if key not in _OF_ITS_OWN and known.get(key, ...) != value
    }
    return [*first, *(word for pair in changed.items() for word in pair)]


def _teacher_keys(teacher: Network) -> list[Any]:
    if not isinstance(teacher, str | os.PathLike):
        return ["KD.TEACHER.CHECK_IMAGES", 0]  # nothing is recorded of it
    path = os.fspath(teacher)
    return ["KD.TEACHER.RUN" if os.path.isdir(path) else "KD.TEACHER.CONFIG_FILE", path]


def _data_keys(data: str | os.PathLike[str] | Sequence[str] | None) -> list[Any]:
    if data is None:
        return []
    if not isinstance(data, str | os.PathLike):
        train, test = data
        return ["DATASETS.TRAIN", [train], "DATASETS.TEST", [test]]
    file = os.fspath(data)
    name = read_custom(file).name
    splits = ["DATASETS.TRAIN", [f"{name}_train"], "DATASETS.TEST", [f"{name}_val"]]
    return ["DATASETS.CUSTOM", [file], *splits]


def _given_networks(cfg: CfgNode, student: Network, teacher: Network) -> Distiller | None:
    """The model, where not both networks are said by the config."""
    if not isinstance(student, Segmentor) and not isinstance(teacher, CfgNode | Segmentor):
        return None
    if cfg.KD.TEACHER.CACHE and isinstance(teacher, CfgNode | Segmentor):
        raise ValueError(
            "KD.TEACHER.CACHE holds the maps of the teacher that wrote it: name that teacher's run in place "
            "of a network, or leave out the cache."
        )
    device = torch.device(cfg.MODEL.DEVICE)
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED)  # as a run does before it builds
    other: Segmentor | CachedTeacher
    own = student.to(device) if isinstance(student, Segmentor) else build_segmentor(cfg)
    if isinstance(teacher, CfgNode):
        other = _trained(teacher, cfg)
    else:
        other = teacher.to(device) if isinstance(teacher, Segmentor) else find_teacher(cfg)
    return Distiller(
        student=own,
        teacher=other,
        losses=build_distill_losses(cfg, own.spec, other.spec),
        teacher_scale=cfg.KD.TEACHER.SCALE,
        pseudo_confidence=cfg.KD.PSEUDO_CONFIDENCE,
    )


def _trained(teacher: CfgNode, cfg: CfgNode) -> Segmentor:
    teacher = teacher.clone()
    teacher.defrost()
    teacher.MODEL.DEVICE, teacher.MODEL.BACKBONE.PRETRAINED = cfg.MODEL.DEVICE, "none"
    network = build_segmentor(teacher)
    options = {"allow_pickle": cfg.CHECKPOINT.ALLOW_PICKLE, "as_float": teacher.DEPLOY.QAT.ENABLED}
    load_teacher(network, teacher.MODEL.WEIGHTS, **options)
    return network
