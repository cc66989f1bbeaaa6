"""SegFormer's backbones, as timm networks under the names ``mit_b0`` to ``mit_b5`` (Xie et al. 2021).

A MiT is a PVTv2 whose MLPs are four times as wide as their maps in every stage, and timm has the latter.
"""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, register_model
from timm.models.pvt_v2 import PyramidVisionTransformerV2
from torch import Tensor, nn

from ...checkpoint.layouts import backbone_weights

_HEADS = (1, 2, 5, 8)
# Channels of the first stage, and blocks per stage.
_SHAPES = {
    "mit_b0": (32, (2, 2, 2, 2)),
    "mit_b1": (64, (2, 2, 2, 2)),
    "mit_b2": (64, (3, 4, 6, 3)),
    "mit_b3": (64, (3, 4, 18, 3)),
    "mit_b4": (64, (3, 8, 27, 3)),
    "mit_b5": (64, (3, 6, 40, 3)),
}

default_cfgs = {
    name: {
        "hf_hub_id": f"nvidia/{name.replace('_', '-')}",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
    for name in _SHAPES
}


def _register(name: str, width: int, depths: tuple[int, ...]) -> None:
    shape = {"embed_dims": tuple(width * h for h in _HEADS), "num_heads": _HEADS, "depths": depths}

    def create(pretrained: bool = False, **options: Any) -> nn.Module:
        return build_model_with_cfg(
            PyramidVisionTransformerV2,
            name,
            pretrained,
            pretrained_filter_fn=_as_timm,
            feature_cfg={"flatten_sequential": True, "out_indices": (0, 1, 2, 3)},
            **{**shape, "mlp_ratios": (4, 4, 4, 4), "drop_path_rate": 0.1, **options},
        )

    create.__name__ = name
    register_model(create)


def _as_timm(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The hub's file under the names of the whole network; a feature network writes some dots otherwise."""
    renamed = backbone_weights(weights)[1].items()
    return {k.replace("stages_", "stages.").replace("classifier.", "head."): v for k, v in renamed}


for _name, (_width, _depths) in _SHAPES.items():
    _register(_name, _width, _depths)
