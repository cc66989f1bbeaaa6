"""The network that is trained and evaluated: backbone, decode head, auxiliary head, task loss."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import ImageList
from torch import Tensor, nn

from ..functional.label_losses import hardest_labels, upsampled_cross_entropy, upsampled_jaccard
from ..registry import DECODE_HEAD_REGISTRY, lookup
from ..structures import SegOutput, SegSpec
from .batch import stack_images, stack_labels
from .decode_heads import DecodeHead, FCNHead
from .recompute import recompute_blocks


class _Channels(dict):
    """Channels of the backbone's maps by name, as heads look them up."""

    def __missing__(self, name: str) -> NoReturn:
        raise KeyError(
            f"A head asks for the map '{name}', but the backbone gives {', '.join(self)}. Set "
            "MODEL.AUXILIARY_HEAD.IN_FEATURE to one of these, or choose another MODEL.SEM_SEG_HEAD.NAME or "
            "MODEL.BACKBONE."
        )


@META_ARCH_REGISTRY.register()
class Segmentor(nn.Module):
    """A semantic segmentation network under detectron2's contract.

    :meth:`encode` is the only path of computation and shows what distillation needs; :meth:`forward` puts
    detectron2's contract on top of it: a dict of losses in training, a list of ``{"sem_seg"}`` otherwise.

    Args:
        backbone: gives maps by name.
        decode_head: the head whose scores are the prediction.
        auxiliary_head: a second head used in training only, or None.
        auxiliary_weight: factor of its loss.
        pixel_mean: per channel, in the order of ``input_format``.
        pixel_std: the same.
        input_format: "RGB" or "BGR", the order in which this network wants its channels.
        ignore_value: label of void pixels.
        loss_mean: "valid" divides the cross-entropy by the labelled pixels, "all" by all of them, as
            mmsegmentation does.
        class_weights: factor of the cross-entropy of each class's pixels; () for 1.
        hardest: the share of pixels, those with the largest cross-entropy, that count in it.
        jaccard_weight: factor of the soft Jaccard loss, which is added.
        freeze_backbone: keep the backbone as it is, in evaluation mode and without gradients.
        channels_last: keep maps with a pixel's channels side by side in memory. The same network; depthwise
            convolutions on a CPU are faster.
        activation_checkpointing: keep only the inputs of the backbone's blocks for the backward pass, which
            computes the rest again: less memory for a third more time.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    class_weights: Tensor | None

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        decode_head: DecodeHead,
        auxiliary_head: DecodeHead | None,
        auxiliary_weight: float,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
        input_format: str = "RGB",
        ignore_value: int = 255,
        loss_mean: str = "valid",
        class_weights: tuple[float, ...] = (),
        hardest: float = 1.0,
        jaccard_weight: float = 0.0,
        freeze_backbone: bool = False,
        channels_last: bool = False,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if input_format not in ("RGB", "BGR"):
            raise ValueError(f"INPUT.FORMAT is '{input_format}'; choose RGB or BGR.")
        if loss_mean not in ("valid", "all"):
            raise ValueError(f"MODEL.SEM_SEG_HEAD.LOSS_MEAN is '{loss_mean}'; choose valid or all.")
        self.backbone = backbone.requires_grad_(False) if freeze_backbone else backbone
        self.freeze_backbone = freeze_backbone
        # By name: layers may be replaced by others of their kind, as where processes share batch norms. Those
        # that are added later, such as the ranges of int8, learn in what is frozen, too.
        self._frozen = {name for name, _ in backbone.named_modules()} if freeze_backbone else set()
        self.decode_head = decode_head
        self.auxiliary_head = auxiliary_head
        self.auxiliary_weight = auxiliary_weight
        self.input_format = input_format
        self.ignore_value = ignore_value
        k = decode_head.num_classes
        if len(class_weights) not in (0, k):
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS has {len(class_weights)} numbers for {k} classes; give "
                "one for each, or [] for 1."
            )
        self.loss_mean = loss_mean
        self.hardest = hardest
        self.jaccard_weight = jaccard_weight
        weights = torch.tensor(class_weights) if class_weights else None
        self.register_buffer("class_weights", weights, False)
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)
        if channels_last:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if activation_checkpointing and not recompute_blocks(backbone):
            raise ValueError(
                "MODEL.ACTIVATION_CHECKPOINTING is True, but this MODEL.BACKBONE has no blocks that can be "
                "computed again: set it to False, and SOLVER.ACCUMULATE higher to save memory."
            )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The arguments, from a config."""
        backbone = build_backbone(cfg)
        channels = _Channels((name, shape.channels) for name, shape in backbone.output_shape().items())
        head, aux = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.AUXILIARY_HEAD
        shared = {"num_classes": head.NUM_CLASSES, "align_corners": head.ALIGN_CORNERS}
        head_class = lookup(DECODE_HEAD_REGISTRY, head.NAME, "MODEL.SEM_SEG_HEAD.NAME")
        decode_head = head_class(
            channels, head.CHANNELS, dropout=head.DROPOUT, **shared, **head_class.options(head)
        )
        auxiliary_head = None
        if aux.WEIGHT > 0:
            auxiliary_head = FCNHead(channels, aux.CHANNELS, in_feature=aux.IN_FEATURE, **shared)
        return {
            "backbone": backbone,
            "decode_head": decode_head,
            "auxiliary_head": auxiliary_head,
            "auxiliary_weight": aux.WEIGHT,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "input_format": cfg.INPUT.FORMAT,
            "ignore_value": head.IGNORE_VALUE,
            "loss_mean": head.LOSS_MEAN,
            "class_weights": head.CLASS_WEIGHTS,
            "hardest": head.HARDEST,
            "jaccard_weight": head.JACCARD_WEIGHT,
            "freeze_backbone": cfg.MODEL.BACKBONE.FREEZE,
            "channels_last": cfg.MODEL.CHANNELS_LAST,
            "activation_checkpointing": cfg.MODEL.ACTIVATION_CHECKPOINTING,
        }

    def train(self, mode: bool = True) -> Segmentor:
        """As for any module, but a frozen backbone stays in evaluation mode."""
        super().train(mode)
        for name, layer in self.backbone.named_modules():  # some are gone from a folded network
            if name in self._frozen:
                layer.training = False
        return self

    @property
    def device(self) -> torch.device:
        """Where the network and its batches are."""
        return self.pixel_mean.device

    @property
    def spec(self) -> SegSpec:
        """What a distillation loss may know before the network runs."""
        return SegSpec(
            num_classes=self.decode_head.num_classes,
            feature_channels=self.decode_head.channels,
            stage_channels={n: s.channels for n, s in self.backbone.output_shape().items()},
        )

    def encode(self, images: Tensor) -> SegOutput:
        """Every map a distillation loss may use, not up-sampled, from images (N, C, H, W) of 0 to 255."""
        return self.encode_normalized(self.normalize(images))

    def encode_normalized(self, images: Tensor) -> SegOutput:
        """:meth:`encode` for images that are normalised already."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_backbone):
            stages = self.backbone(images)
        # Losses read a channel's pixels side by side, whatever the network prefers.
        feature, logits = (x.contiguous() for x in self.decode_head(stages))
        classifier = self.decode_head.conv_seg
        aux_logits = None
        if self.training and self.auxiliary_head is not None:
            aux_logits = self.auxiliary_head(stages)[1].contiguous()
        return SegOutput(logits, feature, classifier.weight.flatten(1), classifier.bias, aux_logits, stages)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """detectron2's contract.

        Args:
            batched_inputs: per image ``image`` (C, H, W) in ``input_format``, 0 to 255; in training
                ``sem_seg`` (H, W) labels; in evaluation ``height`` and ``width`` of the result, if they
                differ from the image's.

        Returns:
            In training the losses by name, else per image ``{"sem_seg": (K, height, width)}``.
        """
        images = stack_images(batched_inputs, self.pixel_mean)
        if self.training:
            labels = stack_labels(batched_inputs, self.ignore_value, self.device)
            return self.losses(self.encode(images.tensor), labels)
        return self.predict(self.encode(images.tensor), images, batched_inputs)

    def normalize(self, images: Tensor) -> Tensor:
        """(N, C, H, W) of 0 to 255 to what the backbone was trained on."""
        return (images - self.pixel_mean) / self.pixel_std

    def losses(self, output: SegOutput, labels: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of both heads, and soft Jaccard of the first, at the labels' resolution, by name."""
        losses = {"loss_seg": self._cross_entropy(output.logits, labels)}
        if self.jaccard_weight:
            losses["loss_jaccard"] = self.jaccard_weight * upsampled_jaccard(
                output.logits.float(), labels, self.ignore_value, self.decode_head.align_corners
            )
        if output.aux_logits is not None:
            losses["loss_aux"] = self.auxiliary_weight * self._cross_entropy(output.aux_logits, labels)
        return losses

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        where = (self.ignore_value, self.decode_head.align_corners)
        logits = logits.float()
        if self.hardest < 1:
            labels = hardest_labels(logits, labels, self.hardest, *where)
        total = upsampled_cross_entropy(logits, labels, *where, weight=self.class_weights)
        if self.loss_mean == "all":
            return total / labels.numel()
        valid = labels != self.ignore_value
        if self.class_weights is None:
            return total / valid.sum().clamp(min=1)
        weights = self.class_weights[labels.where(valid, 0)] * valid  # (N, H, W)
        return total / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)

    def predict(
        self, output: SegOutput, images: ImageList, batched_inputs: list[dict[str, Any]]
    ) -> list[dict[str, Tensor]]:
        """Scores at the size asked for, resized twice: to the network's input, then to the image."""
        logits = F.interpolate(
            output.logits.float(),
            size=images.tensor.shape[-2:],
            mode="bilinear",
            align_corners=self.decode_head.align_corners,
        )
        results = []
        for scores, size, item in zip(logits, images.image_sizes, batched_inputs, strict=True):
            height, width = item.get("height", size[0]), item.get("width", size[1])
            if (height, width) == tuple(size):
                results.append({"sem_seg": scores[:, : size[0], : size[1]]})
            else:
                results.append({"sem_seg": sem_seg_postprocess(scores, size, height, width)})
        return results
