"""Writes what a teacher says of fixed views of the training images."""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from detectron2.config import CfgNode
from torch import Tensor
from tqdm import tqdm

from fakd.data.datasets.custom import register_custom
from fakd.data.loader import build_view_loader, training_records
from fakd.files import exclusive_lock, file_digest
from fakd.losses._usage import teacher_maps
from fakd.modeling import Distiller
from fakd.modeling.batch import stack_images, teacher_images
from fakd.view_cache import CacheInfo, ViewCache, data_digest, look_digest

from .check import check_config
from .teacher_form import FILE, quicken

logger = logging.getLogger(__name__)
_PATIENCE = 1.0


def cache_teacher(cfg: CfgNode, folder: str, views: int, seed: int = 0, top: int = 0) -> ViewCache:
    """Writes, or goes on to write, the teacher's maps that KD.LOSSES read, of every view of every image.

    Args:
        cfg: of the distillation, with its teacher and losses.
        folder: of the cache.
        views: of each training image.
        seed: of the crops, scales, flips and colours.
        top: logits kept of a pixel; 0: all.

    Returns:
        The whole cache.

    Raises:
        ValueError, OSError, KeyError: the config or the data is not usable, or the folder holds another
            cache.
    """
    register_custom(cfg.DATASETS.CUSTOM)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR, cfg.KD.TEACHER.CACHE = folder, ""
    check_config(cfg)
    if cfg.KD.TEACHER.BACKBONE:
        raise ValueError(
            f"KD.TEACHER.BACKBONE {cfg.KD.TEACHER.BACKBONE} is a teacher without classes, with no logits to "
            "cache: train without a cache."
        )
    if views < 1:
        raise ValueError(f"--views is {views}, but must be at least 1.")
    model = Distiller(cfg)
    if not 0 <= top < model.student.spec.num_classes:
        raise ValueError(f"--top is {top}, but must be fewer than the classes; 0 keeps all logits.")
    Path(folder).mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder, _PATIENCE):
        quicken(model, cfg, resumed=Path(folder, FILE).is_file())
        records = training_records(cfg)
        cache = ViewCache.create(folder, _info(cfg, model, records, views, seed, top))
        missing = cache.missing()
        logger.info(
            f"'{folder}': {len(missing)} of {cache.info.images * views} views to write, "
            f"{cache.num_bytes() / 1e6:.0f} MB in all, maps: {', '.join(cache.info.maps)}."
        )
        for batch in tqdm(build_view_loader(cfg, records, views, seed, missing), disable=None):
            maps = _maps(model, batch)
            kept = {name: maps[name].cpu().numpy() for name in cache.info.maps}
            cache.write([each["view"] for each in batch], kept)
    return cache


def _info(cfg: CfgNode, model: Distiller, records: list[dict], views: int, seed: int, top: int) -> CacheInfo:
    spec = model.teacher.network.spec
    read = teacher_maps(model.losses.values(), model.student.spec, spec) - {"weight", "bias"} | {"logits"}
    maps = _maps(model, next(iter(build_view_loader(cfg, records, views, seed, [0]))))
    return CacheInfo(
        teacher=file_digest(cfg.KD.TEACHER.WEIGHTS),
        scale=cfg.KD.TEACHER.SCALE,
        data=data_digest(records),
        look=look_digest(cfg),
        images=len(records),
        views=views,
        seed=seed,
        top=top,
        num_classes=spec.num_classes,
        feature_channels=spec.feature_channels,
        stage_channels=dict(spec.stage_channels),
        maps={name: list(maps[name].shape[1:]) for name in sorted(read)},
    )


@torch.no_grad()
def _maps(model: Distiller, batch: list[dict]) -> Mapping[str, Tensor]:
    """The teacher's maps of a batch by name."""
    images = stack_images(batch, model.student.pixel_mean).tensor
    images = teacher_images(batch, images, model.student.pixel_mean)
    output = model.teacher.encode(images).float()
    return {"logits": output.logits, "feature": output.feature, **output.stages}
