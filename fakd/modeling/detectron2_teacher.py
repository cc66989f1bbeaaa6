"""detectron2's own semantic segmentation models as teachers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from detectron2.config import get_cfg
from detectron2.modeling import SemanticSegmentor, build_model
from detectron2.projects.deeplab import add_deeplab_config
from torch import Tensor, nn

from ..checkpoint.teacher import load_teacher
from ..config.setup import read_keys
from ..files import shipped
from .segmentor import Segmentor


class Detectron2Head(nn.Module):
    """A head of detectron2's DeepLab project, seen as a decode head.

    Args:
        head: with ``layers``, whose last step is the 1x1 convolution ``predictor``.

    Raises:
        ValueError: it is built otherwise.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        predictor = getattr(head, "predictor", None)
        if not (isinstance(predictor, nn.Conv2d) and predictor.kernel_size == (1, 1)) or not hasattr(
            head, "decoder_only"
        ):
            raise ValueError(
                f"{type(head).__name__} cannot be a teacher: its classifier must be a 1x1 convolution "
                "'predictor' and it must be able to stop before it ('decoder_only'), as in "
                "DeepLabV3PlusHead."
            )
        self.conv_seg = predictor
        self.head = head
        head.decoder_only = True  # type: ignore[assignment]
        self.num_classes, self.channels = predictor.out_channels, predictor.in_channels
        self.align_corners = False

    def forward(self, stages: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The classifier's input (N, A, h, w) and its scores (N, K, h, w)."""
        feature = self.head.layers(stages)  # type: ignore[operator]
        return feature, self.conv_seg(feature)


def wrap_detectron2(model: SemanticSegmentor, input_format: str = "BGR") -> Segmentor:
    """A detectron2 model with its weights, as a teacher; not to be trained or saved.

    Args:
        model: whose head :class:`Detectron2Head` accepts; it stops before its classifier from now on.
        input_format: the order of channels it was trained on.
    """
    return Segmentor(
        backbone=model.backbone,
        decode_head=Detectron2Head(model.sem_seg_head),  # type: ignore[arg-type]
        auxiliary_head=None,
        auxiliary_weight=0.0,
        pixel_mean=tuple(model.pixel_mean.flatten().tolist()),
        pixel_std=tuple(model.pixel_std.flatten().tolist()),
        input_format=input_format,
    ).to(model.device)


def is_detectron2_config(config_file: str) -> bool:
    """Whether a yaml describes detectron2's SemanticSegmentor, which has keys and names of its own.

    Raises:
        ValueError: the file is not yaml, or does not hold keys and their values.
    """
    config_file = shipped(config_file)
    if not Path(config_file).is_file():
        return False
    return read_keys(config_file).get("MODEL.META_ARCHITECTURE") == "SemanticSegmentor"


def load_detectron2_teacher(
    config_file: str, weights: str, device: str, allow_pickle: bool = False
) -> Segmentor:
    """A teacher from a config of detectron2's DeepLab project and its checkpoint, every key of which fits.

    Args:
        weights: a file; "" for none.

    Raises:
        ValueError: a weight is missing, unknown or of another shape.
    """
    cfg = get_cfg()
    add_deeplab_config(cfg)
    cfg.merge_from_file(config_file, allow_unsafe=False)  # by default a yaml may name Python objects
    cfg.MODEL.DEVICE = device
    model = build_model(cfg)
    if weights:
        load_teacher(model, weights, config_file, allow_pickle)
    return wrap_detectron2(model, cfg.INPUT.FORMAT)
