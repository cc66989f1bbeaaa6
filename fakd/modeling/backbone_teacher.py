"""A backbone alone as a teacher: features without classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from ..checkpoint.registry_weights import registry_weights
from .backbones import TimmBackbone
from .segmentor import Segmentor


class _NoClassifier(nn.Module):
    bias = None

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(0, channels), persistent=False)


class NoClasses(nn.Module):
    """In the place of a decode head: the coarsest map is the feature, and there are no scores.

    Args:
        channels: of that map.
        name: of that map.
    """

    num_classes = 0
    align_corners = False

    def __init__(self, channels: int, name: str) -> None:
        super().__init__()
        self.channels, self.name = channels, name
        self.conv_seg = _NoClassifier(channels)

    def forward(self, stages: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The feature (N, A, h, w), and (N, 0, h, w)."""
        feature = stages[self.name]
        return feature, feature[:, :0]


def load_backbone_teacher(name: str, weights: str) -> Segmentor:
    """A network of timm as a teacher without classes, with its own strides, normalised as its weights want
    it.

    Images of a size that it does not take are resized to one that it does; losses bring its maps to the
    student's grid.

    Args:
        name: timm's, such as "vit_small_patch14_dinov2".
        weights: "timm" for those of timm's hub, "registry" for those of Python's package registry, or a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no such network, ``weights`` is empty, or the weights do not fit or cannot be
            had.
    """
    check_backbone_weights(name, weights)
    try:
        return backbone_teacher(name, weights)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"KD.TEACHER.BACKBONE '{name}', KD.TEACHER.WEIGHTS '{weights}': {error}") from error


def check_backbone_weights(name: str, weights: str) -> None:
    """Refuses weights of which can be told without a network that there are none.

    Raises:
        FileNotFoundError, ValueError: see :func:`load_backbone_teacher`.
    """
    if not weights:
        raise ValueError(
            f"KD.TEACHER.WEIGHTS is empty: set it to 'timm', 'registry' or the file of the weights of "
            f"KD.TEACHER.BACKBONE, '{name}'."
        )
    if weights not in ("timm", "registry") and not Path(weights).is_file():
        raise FileNotFoundError(
            f"KD.TEACHER.BACKBONE '{name}', KD.TEACHER.WEIGHTS '{weights}': there is no file."
        )


def backbone_teacher(name: str, weights: str = "none") -> Segmentor:
    """:func:`load_backbone_teacher`, also with random weights, "none"."""
    backbone = TimmBackbone(name=name, output_stride=32, pretrained=weights, any_size=True)
    mean, std = _normalisation(name, weights)
    last, shape = list(backbone.output_shape().items())[-1]
    return Segmentor(
        backbone=backbone,
        decode_head=NoClasses(shape.channels, last),  # type: ignore[arg-type]
        auxiliary_head=None,
        auxiliary_weight=0.0,
        pixel_mean=mean,
        pixel_std=std,
    )


def _normalisation(name: str, weights: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of RGB in 0 to 255 that the weights were trained with."""
    if weights == "registry":
        entry = registry_weights(name)
        return entry.pixel_mean, entry.pixel_std
    known = timm.get_pretrained_cfg(name)
    assert known is not None  # the network was built
    return tuple(255 * x for x in known.mean), tuple(255 * x for x in known.std)
