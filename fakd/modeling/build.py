"""From a config to networks and losses."""

from __future__ import annotations

import logging

import torch
from detectron2.config import CfgNode
from timm.layers import convert_sync_batchnorm
from torch import nn

from ..checkpoint.teacher import load_teacher
from ..config import load_teacher_config
from ..layers import Critic
from ..losses import DistillLoss
from ..losses.base import config_key
from ..registry import DISTILL_LOSS_REGISTRY, lookup
from ..structures import SegSpec
from .backbone_teacher import load_backbone_teacher
from .detectron2_teacher import is_detectron2_config, load_detectron2_teacher
from .segmentor import Segmentor

logger = logging.getLogger(__name__)


def build_segmentor(cfg: CfgNode) -> Segmentor:
    """The network of a config on its device, without distillation."""
    return Segmentor(cfg).to(torch.device(cfg.MODEL.DEVICE))


def build_distill_losses(cfg: CfgNode, student: SegSpec, teacher: SegSpec) -> dict[str, DistillLoss]:
    """The losses of ``KD.LOSSES`` by name, on the device; those of weight zero are left out.

    Raises:
        ValueError: the teacher has no classes, and a loss reads its logits.
        KeyError: a name is not registered; the message lists those that are.
    """
    losses = {}
    for name in cfg.KD.LOSSES:
        loss = lookup(DISTILL_LOSS_REGISTRY, name, "KD.LOSSES")
        node = cfg.KD[name]
        if node.WEIGHT == 0:
            logger.info("KD.%s.WEIGHT is 0: the loss is not built.", name)
            continue
        fields = loss.Config.__dataclass_fields__
        config = loss.Config(**{field: node[config_key(field)] for field in fields})
        if not teacher.num_classes and loss.reads_teacher_logits(config):
            raise ValueError(_refusal(name))
        losses[name] = loss(config, student, teacher).to(torch.device(cfg.MODEL.DEVICE))
    return losses


def _refusal(name: str) -> str:
    """What to say of a loss that needs a teacher's classes."""
    others = [each for each, loss in DISTILL_LOSS_REGISTRY if not loss.reads_teacher_logits(loss.Config())]
    return (
        f"KD.LOSSES: {name} reads the teacher's logits, but KD.TEACHER.BACKBONE is a teacher without "
        f"classes. Those that read its features alone: {', '.join(sorted(others))}, and CWD with "
        "KD.CWD.SOURCE feature. Or train a head on it (MODEL.BACKBONE.FREEZE, docs/foundation.md) and take "
        "that network."
    )


def build_teacher(cfg: CfgNode) -> Segmentor:
    """The network of ``KD.TEACHER.CONFIG_FILE`` with ``KD.TEACHER.WEIGHTS``, every key of which must fit.

    With ``KD.TEACHER.BACKBONE`` a network of timm without classes.

    Raises:
        ValueError: either key is empty, or the weights are not of that config.
    """
    teacher = cfg.KD.TEACHER
    if teacher.BACKBONE:
        return load_backbone_teacher(teacher.BACKBONE, teacher.WEIGHTS).to(torch.device(cfg.MODEL.DEVICE))
    for key in ("CONFIG_FILE", "WEIGHTS"):
        if not teacher[key]:
            raise ValueError(
                f"KD.TEACHER.{key} is empty: distillation needs the teacher's own config and weights, "
                "for instance the model_final.pth of a run of that config."
            )
    if is_detectron2_config(teacher.CONFIG_FILE):
        return load_detectron2_teacher(
            teacher.CONFIG_FILE, teacher.WEIGHTS, cfg.MODEL.DEVICE, cfg.CHECKPOINT.ALLOW_PICKLE
        )
    teacher_cfg = load_teacher_config(cfg)
    teacher_cfg.MODEL.DEVICE = cfg.MODEL.DEVICE
    teacher_cfg.MODEL.BACKBONE.PRETRAINED = "none"
    model = build_segmentor(teacher_cfg)
    options = {"allow_pickle": cfg.CHECKPOINT.ALLOW_PICKLE, "as_float": teacher_cfg.DEPLOY.QAT.ENABLED}
    load_teacher(model, teacher.WEIGHTS, teacher.CONFIG_FILE, **options)
    return model


def share_batch_norm(model: nn.Module) -> None:
    """Synchronise batch norm of the trained network and of the losses' adapters across processes."""
    parts = dict(model.named_children())  # a Distiller's, or a network's own
    # timm's converter, because torch's drops the activation inside timm's BatchNormAct2d.
    convert_sync_batchnorm(parts.get("student", model))
    for loss in parts.get("losses", nn.ModuleDict()).children():
        for name, part in loss.named_children():
            # A critic's gradient penalty is differentiated twice, which SyncBatchNorm cannot be.
            if not isinstance(part, Critic):
                setattr(loss, name, convert_sync_batchnorm(part))
