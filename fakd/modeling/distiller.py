"""Teacher, student and the losses between them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn

from ..functional.precision import autocast
from ..functional.resize import resize_labels
from ..losses import DistillLoss
from ..structures import LossInputs, SegOutput
from ..view_cache import ViewCache
from .batch import stack_images, stack_labels, stack_unlabelled, teacher_images
from .build import build_distill_losses, build_segmentor, build_teacher
from .cached_teacher import CachedTeacher
from .pseudo_labels import PseudoLabels
from .segmentor import Segmentor
from .teacher import FrozenTeacher

logger = logging.getLogger(__name__)


def find_teacher(cfg: CfgNode) -> Segmentor | CachedTeacher:
    """The teacher of a config, or what it has said already (KD.TEACHER.CACHE).

    Raises:
        ValueError, OSError: see :func:`fakd.modeling.build.build_teacher`, or the cache is not usable.
    """
    cache = cfg.KD.TEACHER.CACHE
    return CachedTeacher(ViewCache(cache)) if cache else build_teacher(cfg)


@META_ARCH_REGISTRY.register()
class Distiller(nn.Module):
    """Trains a student beside a frozen teacher; in evaluation and in checkpoints it is the student.

    ``state_dict`` and ``load_state_dict`` are the student's own, so any trainer's checkpoint is one of the
    plain student. What else has state (statistics, queues, adapters) is in :attr:`distillation_state`, to be
    given to a checkpointer beside the model.

    :attr:`teacher` may be replaced by any module that is called in the same way and gives the same maps:
    one that caches its answer, for instance, lets several students share a forward pass.

    Args:
        student: the network that is trained.
        teacher: the network to learn from, which is frozen, or what it has said already.
        losses: distillation losses by name.
        teacher_scale: factor of the size of the images that the teacher sees.
        pseudo_confidence: in images without labels, losses that read labels take the teacher's class where
            its probability is at least this; 1: nowhere.

    Raises:
        ValueError: the two networks have different class counts (a teacher may have none), or a cache of the
            teacher lacks a map that a loss reads.
    """

    student: Segmentor
    teacher: Any  # a FrozenTeacher, a CachedTeacher or a replacement of it
    losses: Any  # a ModuleDict of DistillLoss

    @configurable
    def __init__(
        self,
        *,
        student: Segmentor,
        teacher: Segmentor | CachedTeacher,
        losses: Mapping[str, DistillLoss],
        teacher_scale: float = 1.0,
        pseudo_confidence: float = 1.0,
    ) -> None:
        super().__init__()
        k_student, k_teacher = student.spec.num_classes, teacher.spec.num_classes
        if k_teacher and k_student != k_teacher:
            raise ValueError(
                f"the student has {k_student} classes, the teacher {k_teacher}: "
                "set MODEL.SEM_SEG_HEAD.NUM_CLASSES alike in both configs (KD.TEACHER.CONFIG_FILE)."
            )
        if isinstance(teacher, Segmentor) and len(teacher.pixel_mean) != len(student.pixel_mean):
            raise ValueError(
                f"the student's images have {len(student.pixel_mean)} channels, the teacher's "
                f"{len(teacher.pixel_mean)}: both are shown the same, so set INPUT.CHANNELS alike in both "
                "configs (KD.TEACHER.CONFIG_FILE)."
            )
        self.student = student
        if isinstance(teacher, Segmentor):
            self.teacher = FrozenTeacher(teacher, student.input_format, teacher_scale)
        else:
            if isinstance(teacher, CachedTeacher):
                teacher.check(losses.values(), student.spec)
            self.teacher = teacher
        self.losses = nn.ModuleDict(losses)
        self.pseudo_labels = PseudoLabels(pseudo_confidence, student.ignore_value)
        self._progress = 0.0

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The arguments, from the student's config; the teacher has its own in KD.TEACHER."""
        student = build_segmentor(cfg)
        teacher = find_teacher(cfg)
        return {
            "student": student,
            "teacher": teacher,
            "losses": build_distill_losses(cfg, student.spec, teacher.spec),
            "teacher_scale": cfg.KD.TEACHER.SCALE,
            "pseudo_confidence": cfg.KD.PSEUDO_CONFIDENCE,
        }

    @property
    def device(self) -> torch.device:
        """Where both networks and their batches are."""
        return self.student.device

    @property
    def distillation_state(self) -> nn.Module:
        """Everything with state that is neither the student nor the teacher."""
        return self.losses

    def set_progress(self, progress: float) -> None:
        """Set the fraction of the training that is done, in [0, 1), on which schedules depend."""
        self._progress = progress

    def pop_scalars(self) -> dict[str, Tensor]:
        """Scalars the losses have logged, as ``<loss>/<name>``; they are cleared."""
        scalars = {
            f"{name}/{key}": value
            for name, loss in self.losses.items()
            for key, value in loss.pop_scalars().items()
        }
        return scalars | self.pseudo_labels.pop_scalars()

    def forward(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """As :meth:`Segmentor.forward`, plus one ``loss_<Name>`` per distillation loss in training."""
        if not self.training:
            return self.student(batched_inputs)
        images = stack_images(batched_inputs, self.student.pixel_mean).tensor
        labels = stack_labels(batched_inputs, self.student.ignore_value, self.device)
        unlabelled = stack_unlabelled(batched_inputs, labels)
        # The teacher first: its activations are freed before the student's are kept for the backward pass.
        shown = teacher_images(batched_inputs, images, self.student.pixel_mean)
        teacher, student = self.teacher(shown, batched_inputs), self.student.encode(images)
        losses = self.student.losses(student, labels)
        return {**losses, **self.distillation_losses(student, teacher, labels, unlabelled)}

    def distillation_losses(
        self, student: SegOutput, teacher: SegOutput, labels: Tensor, unlabelled: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Every loss times its weight, as ``loss_<Name>``.

        Args:
            student: its maps, with gradient.
            teacher: its maps.
            labels: (N, H, W) of class ids and void.
            unlabelled: (N, H, W) bool, the pixels of images without labels, or None.

        Raises:
            ValueError: a loss returned something other than a scalar.
        """
        # Softmaxes over thousands of pixels, and covariances, are too inaccurate in half precision.
        with autocast(self.device, None):
            small = resize_labels(labels, student.feature.shape[-2:])
            teacher = teacher.detach().float()
            if unlabelled is not None:
                unlabelled = resize_labels(unlabelled, small.shape[-2:])
                small = self.pseudo_labels(small, unlabelled, teacher.logits)
            inputs = LossInputs(
                student=student.float(),
                teacher=teacher,
                labels=small,
                valid=small != self.student.ignore_value,
                progress=self._progress,
                unlabelled=unlabelled,
            )
            values = {name: loss(inputs) for name, loss in self.losses.items()}
        for name, value in values.items():
            if value.ndim:
                raise ValueError(
                    f"KD.LOSSES: {name} returned a tensor of shape {tuple(value.shape)}; its forward must "
                    "return a scalar, such as a mean over the valid pixels."
                )
        return {f"loss_{name}": self.losses[name].config.weight * value for name, value in values.items()}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The student's."""
        return self.student.state_dict(*args, **kwargs)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Into the student."""
        return self.student.load_state_dict(state_dict, strict=strict, assign=assign)
