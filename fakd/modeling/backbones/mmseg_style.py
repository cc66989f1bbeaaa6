"""What mmsegmentation's backbones do differently from timm's of the same weights.

Only attributes and forward functions of built networks change, so weights are unaffected. With these changes
every map of a convolutional network equals mmsegmentation's to the bit, and without them they are far off.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from timm.models.hrnet import HighResolutionModule
from timm.models.resnet import BasicBlock
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import statically_known_true


def use_mmseg_style(net: nn.Module, name: str) -> None:
    """Changes a timm network in place to what mmsegmentation computes with its weights.

    ResNet: the second convolution of a basic block is never dilated. MobileNetV2: of a stage's blocks only
    the first is dilated. HRNet: branches are fused bilinearly, at any image size. MiT: all layer norms have
    one epsilon. Others stay as they are.

    Args:
        net: built with the wanted output stride.
        name: timm's name of it.
    """
    for module in net.modules():
        if isinstance(module, BasicBlock):
            _dilate(module.conv2, 1)
        elif isinstance(module, HighResolutionModule):
            _fuse_bilinearly(module)
        elif isinstance(module, nn.LayerNorm) and name.startswith("mit_"):
            module.eps = 1e-6
    if name.startswith("mobilenetv2_"):
        stages: Any = net.blocks
        for stage in stages:
            # A strided first block has half the dilation in timm, so the stage's own is the largest.
            dilation = max(block.conv_dw.dilation[0] for block in stage)
            for index, block in enumerate(stage):
                _dilate(block.conv_dw, dilation if index == 0 else 1)


def _dilate(conv: nn.Conv2d, dilation: int) -> None:
    """For 3x3 convolutions, whose padding is their dilation."""
    conv.dilation = conv.padding = (dilation, dilation)


def _fuse_bilinearly(module: HighResolutionModule) -> None:
    module.__class__ = BilinearFusion  # not a bound method, which copies of the network would share
    if module.num_branches == 1:
        return
    for target, layers in enumerate(module.fuse_layers):
        for source in range(target + 1, module.num_branches):
            layers[source][2] = nn.Upsample(
                scale_factor=2 ** (source - target), mode="bilinear", align_corners=False
            )


class BilinearFusion(HighResolutionModule):
    """HRNet's module with branches up-sampled by their integer factor and then to the exact size.

    timm up-samples to the nearest pixel and fails where the sides do not divide by 32. With such sides one
    resize and two give different values; the published weights were trained with two.
    """

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        x = [branch(map_) for branch, map_ in zip(self.branches, x, strict=True)]
        return [self._fuse(layers, x, x[i]) for i, layers in enumerate(self.fuse_layers)] if x[1:] else x

    def _fuse(self, layers: nn.ModuleList, x: list[Tensor], like: Tensor) -> Tensor:
        total: Tensor | int = 0
        for layer, source in zip(layers, x, strict=True):
            y = layer(source)
            sides = zip(y.shape[-2:], like.shape[-2:], strict=True)
            # An exported graph for any size cannot branch: where sizes are unknown, it contains the resize.
            if not all(statically_known_true(a == b) for a, b in sides):
                y = F.interpolate(y, size=like.shape[-2:], mode="bilinear", align_corners=False)
            total = total + y
        return self.fuse_act(total)
