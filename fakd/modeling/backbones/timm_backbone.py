"""timm's networks behind detectron2's Backbone."""

from __future__ import annotations

import logging
from typing import Any

import timm
import torch
from detectron2.config import configurable
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, ShapeSpec
from timm.models.resnet import BasicBlock
from torch import Tensor, nn

logger = logging.getLogger(__name__)

# Width of the first of the three 3x3 convolutions that replace the 7x7 one, by the name of the variant.
DEEP_STEMS = {"c": 32, "s": 64}


@BACKBONE_REGISTRY.register()
class TimmBackbone(Backbone):
    """A timm network with its classifier removed, dilated to a given output stride.

    The maps are named ``res2`` to ``res5``, fine to coarse, whatever the network.

    Args:
        name: timm model name, e.g. "resnet18".
        output_stride: 8, 16 or 32; the last stages are dilated instead of strided.
        dilation_style: "mmseg" or "timm". Both have the same weights; mmsegmentation does not dilate the
            second convolution of a ResNet's basic block, timm does.
        stem: of a ResNet: "7x7", or "c" and "s" for three 3x3 convolutions of 32 or 64 channels (the
            third has twice as many).
        width: of a ResNet: factor of all channels, for small experiments.
        pretrained: "none", "timm" for the weights of timm's hub, or the path of a file.
    """

    @configurable
    def __init__(
        self,
        *,
        name: str,
        output_stride: int = 8,
        dilation_style: str = "mmseg",
        stem: str = "7x7",
        width: float = 1.0,
        pretrained: str = "none",
    ) -> None:
        super().__init__()
        if dilation_style not in ("mmseg", "timm"):
            raise ValueError(
                f"MODEL.BACKBONE.DILATION_STYLE is '{dilation_style}'; choose 'mmseg' or 'timm'."
            )
        kwargs = _resnet_kwargs(stem, width)
        self.net = timm.create_model(
            name,
            pretrained=pretrained == "timm",
            features_only=True,
            output_stride=output_stride,
            out_indices=(1, 2, 3, 4),
            **kwargs,
        )
        if dilation_style == "mmseg":
            use_mmseg_dilation(self.net)
        info = self.net.feature_info
        self._out_features = [f"res{i + 2}" for i in range(len(info.channels()))]
        self._out_feature_channels = dict(zip(self._out_features, info.channels(), strict=True))
        self._out_feature_strides = dict(zip(self._out_features, info.reduction(), strict=True))
        if pretrained not in ("none", "timm"):
            self._load(pretrained)

    @classmethod
    def from_config(cls, cfg, input_shape) -> dict[str, Any]:
        backbone = cfg.MODEL.BACKBONE
        return {
            "name": backbone.TIMM_NAME,
            "output_stride": backbone.OUTPUT_STRIDE,
            "dilation_style": backbone.DILATION_STYLE,
            "stem": backbone.STEM,
            "width": backbone.WIDTH,
            "pretrained": backbone.PRETRAINED,
        }

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps by name; ``images`` (N, 3, H, W), normalised."""
        return dict(zip(self._out_features, self.net(images), strict=True))

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self._out_features
        }

    def _load(self, path: str) -> None:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        result = self.net.load_state_dict(state, strict=False)
        if result.missing_keys:
            raise ValueError(
                f"MODEL.BACKBONE.PRETRAINED: {path} lacks {len(result.missing_keys)} weights of the network, "
                f"the first being {result.missing_keys[:3]}. Give a file of the same architecture."
            )
        logger.info(
            "Loaded the backbone from %s; not used: %s", path, ", ".join(result.unexpected_keys) or "none"
        )


def _resnet_kwargs(stem: str, width: float) -> dict[str, Any]:
    """timm's arguments for a ResNet's stem and width; nothing for the defaults, so any network accepts them."""
    if stem != "7x7" and stem not in DEEP_STEMS:
        raise ValueError(f"MODEL.BACKBONE.STEM is '{stem}'; choose from 7x7, {', '.join(DEEP_STEMS)}.")
    kwargs: dict[str, Any] = {}
    if stem in DEEP_STEMS:
        kwargs.update(stem_type="deep", stem_width=max(1, round(DEEP_STEMS[stem] * width)))
    if width != 1.0:
        kwargs["channels"] = tuple(max(1, round(c * width)) for c in (64, 128, 256, 512))
    return kwargs


def use_mmseg_dilation(net: nn.Module) -> None:
    """Undo, in place, the dilation of every basic block's second convolution, as mmsegmentation has it."""
    for block in net.modules():
        if isinstance(block, BasicBlock):
            block.conv2.dilation = (1, 1)
            block.conv2.padding = (1, 1)
