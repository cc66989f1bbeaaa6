"""From checkpoints of mmsegmentation, of CIRKD and of SegFormer to this project's, key by key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from .layouts import backbone_weights, unwrap

# CIRKD's networks take BGR from 0 to 255 minus this mean, without division.
CIRKD_MEAN = (104.00698793, 116.66876762, 122.67891434)
_CIRKD: dict[str, Any] = {
    "INPUT.FORMAT": "BGR",
    "MODEL.PIXEL_MEAN": list(CIRKD_MEAN),
    "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
    "MODEL.SEM_SEG_HEAD.ALIGN_CORNERS": True,
}
# A bias in front of a batch norm, which moves its mean; a classifier that its authors' network never calls.
_SEGFORMER_ABSORBED = ("linear_fuse.0.bias", "conv_seg.weight", "conv_seg.bias")
_BN = {"0": "conv", "1": "bn"}


@dataclass(frozen=True)
class Converted:
    """A checkpoint under this project's names.

    Attributes:
        weights: by the names of :class:`fakd.modeling.Segmentor`.
        config: config keys that the checkpoint determines, as {key: value}.
        classes: names of the classes; empty if the file has none.
        source: "mmsegmentation", "CIRKD", "SegFormer's authors" or "Hugging Face".
    """

    weights: dict[str, Tensor]
    config: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    source: str = "mmsegmentation"


def convert(content: Mapping[str, Any]) -> Converted:
    """Converts the content of a checkpoint file.

    Args:
        content: of mmsegmentation 0.x or 1.x, of CIRKD, or of a SegFormer of its authors or of Hugging
            Face; with or without the container and "module.".

    Raises:
        ValueError: it holds no weights, or those of another kind of network.
    """
    weights = unwrap(content)
    meta = content.get("meta", {})
    config: dict[str, Any] = {}
    if source := _segformer_source(weights):
        renamed, config = _from_segformer(weights), dict(_CIRKD) if source == "CIRKD" else {}
        config["MODEL.BACKBONE.DILATION_STYLE"] = "timm"
        config["MODEL.SEM_SEG_HEAD.NAME"] = "LinearSegformerHead"
        if "decode_head.conv_seg.weight" in renamed:
            config["MODEL.SEM_SEG_HEAD.CHANNELS"] = renamed["decode_head.conv_seg.weight"].shape[1]
    elif any(key.startswith("pretrained.") for key in weights):
        renamed, config, source = _from_cirkd(weights), dict(_CIRKD), "CIRKD"
    elif any(key.startswith("backbone.") for key in weights):
        renamed, source = _from_mmseg(weights), "mmsegmentation"
        align_corners = _align_corners(meta)
        if align_corners is not None:
            config["MODEL.SEM_SEG_HEAD.ALIGN_CORNERS"] = align_corners
    else:
        raise ValueError(
            f"no key begins with 'backbone.' (mmsegmentation) or 'pretrained.' (CIRKD), and it is no "
            f"SegFormer; the first is '{next(iter(weights))}'. For ImageNet weights of a backbone set "
            "MODEL.BACKBONE.PRETRAINED."
        )
    if "decode_head.conv_seg.weight" in renamed:
        config["MODEL.SEM_SEG_HEAD.NUM_CLASSES"] = len(renamed["decode_head.conv_seg.weight"])
    return Converted(renamed, config, _classes(meta), source)


def check_fit(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Checks that checkpoint and model have the same weights.

    Raises:
        ValueError: listing every key that is missing, unexpected or of another shape.
    """
    own = model.state_dict()
    problems = {
        # Old torch wrote no counter of batch norm, and nothing reads it.
        "missing": [k for k in own if k not in weights and not k.endswith("num_batches_tracked")],
        "unexpected": [k for k in weights if k not in own],
        "of another shape": [
            f"{k} {tuple(weights[k].shape)}, not {tuple(own[k].shape)}"
            for k in own
            if k in weights and weights[k].shape != own[k].shape
        ],
    }
    if any(problems.values()):
        lines = [f"{len(keys)} {what}: {', '.join(keys)}" for what, keys in problems.items() if keys]
        raise ValueError("the checkpoint does not fit the config.\n" + "\n".join(lines))


def nested(config: Mapping[str, Any]) -> dict[str, Any]:
    """{"A.B": value} as {"A": {"B": value}}, the form of a yaml file."""
    tree: dict[str, Any] = {}
    for key, value in config.items():
        *nodes, leaf = key.split(".")
        node = tree
        for name in nodes:
            node = node.setdefault(name, {})
        node[leaf] = value
    return tree


def _from_mmseg(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The heads' names are the same in both."""
    heads = {k: v for k, v in weights.items() if not k.startswith("backbone.")}
    return _backbone(weights, r"backbone\.") | heads


def _backbone(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """This project's weights of the backbone, whose names begin with ``prefix``, a regular expression."""
    body = {re.sub(prefix, "", k, count=1): v for k, v in weights.items() if re.match(prefix, k)}
    return {f"backbone.net.{k}": v for k, v in backbone_weights(body)[1].items()}


def _from_cirkd(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # The last are the ImageNet classifier, which its networks carry along unused.
    renamed = _backbone(weights, r"pretrained\.(net\.)?(?!(fc|classifier)\.)")
    for key, value in weights.items():
        if not key.startswith("pretrained."):
            renamed[_cirkd_head_name(key)] = value
    return renamed


def _segformer_source(weights: Mapping[str, Tensor]) -> str | None:
    """The origin of a SegFormer with linear layers in its head; None for other networks."""
    sources = {
        "linear_c1.proj.weight": "CIRKD",
        "decode_head.linear_c1.proj.weight": "SegFormer's authors",
        "decode_head.linear_c.0.proj.weight": "Hugging Face",
    }
    return next((source for key, source in sources.items() if key in weights), None)


def _from_segformer(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A SegFormer whose head's layers are matrices, and whose maps are joined from the coarsest on."""
    renamed = _backbone(weights, r"(backbone\.)?(?!decode_head\.|linear_)")
    for key, value in weights.items():
        name = re.sub(r"^decode_head\.", "", key)
        if match := re.fullmatch(r"linear_c(\.?)(\d)\.proj\.(\w+)", name):
            index = int(match[2]) - (not match[1])  # Hugging Face counts from 0
            value = value[..., None, None] if match[3] == "weight" else value
            renamed[f"decode_head.convs.{index}.{match[3]}"] = value
        elif re.fullmatch(r"linear_fuse(\.conv|\.0)?\.weight", name):
            value = value.unflatten(1, (4, -1)).flip(1).flatten(1, 2)
            renamed["decode_head.fusion_conv.conv.weight"] = value
        elif match := re.fullmatch(r"(?:linear_fuse\.bn|linear_fuse\.1|batch_norm)\.(\w+)", name):
            renamed[f"decode_head.fusion_conv.bn.{match[1]}"] = value
        elif match := re.fullmatch(r"(?:linear_pred|classifier)\.(\w+)", name):
            renamed[f"decode_head.conv_seg.{match[1]}"] = value
        elif key.startswith(("decode_head.", "linear_")) and name not in _SEGFORMER_ABSORBED:
            renamed[key] = value  # found by the check
    mean = "decode_head.fusion_conv.bn.running_mean"
    if "linear_fuse.0.bias" in weights and mean in renamed:
        renamed[mean] = renamed[mean] - weights["linear_fuse.0.bias"]
    return renamed


def _cirkd_head_name(key: str) -> str:
    """This project's name of a weight in CIRKD's heads; an unknown one stays, and is found by the check."""
    module, _, leaf = key.rpartition(".")
    direct = {
        "head.classifier": "decode_head.conv_seg",
        "head.block.4": "decode_head.conv_seg",
        "auxlayer.block.4": "auxiliary_head.conv_seg",
    }
    if module in direct:
        return f"{direct[module]}.{leaf}"
    if match := re.fullmatch(r"head\.aspp\.b4\.gap\.([12])", module):
        return f"decode_head.image_pool.1.{_BN[str(int(match[1]) - 1)]}.{leaf}"
    for pattern, target in (
        (r"head\.aspp\.b([0-3])\.(?:block\.)?([01])", "decode_head.aspp_modules.{}"),
        (r"head\.aspp\.(project)\.([01])", "decode_head.project"),
        (r"head\.psp\.conv([1-4])\.([01])", "decode_head.psp_modules.{}.1"),
        (r"head\.(block)\.([01])", "decode_head.bottleneck"),
        (r"auxlayer\.(block)\.([01])", "auxiliary_head.convs.0"),
    ):
        if match := re.fullmatch(pattern, module):
            first = int(match[1]) - 1 if "psp" in pattern else match[1]  # its names count from 1
            return f"{target.format(first)}.{_BN[match[2]]}.{leaf}"
    return key


def _align_corners(meta: Mapping[str, Any]) -> bool | None:
    """How the heads resize, if the config text in the checkpoint says it.

    Raises:
        ValueError: the heads of one checkpoint differ.
    """
    text = str(meta.get("config") or meta.get("cfg") or "")
    said = set(re.findall(r"""align_corners['"]?\s*[=:]\s*(True|False)""", text))
    if len(said) > 1:
        raise ValueError(
            "the checkpoint's config sets align_corners to True and to False; this project has one value "
            "for all heads, MODEL.SEM_SEG_HEAD.ALIGN_CORNERS."
        )
    return said.pop() == "True" if said else None


def _classes(meta: Mapping[str, Any]) -> tuple[str, ...]:
    described = meta.get("dataset_meta") or {}
    names = meta.get("CLASSES") or described.get("classes") or described.get("CLASSES") or ()
    return tuple(str(name) for name in names)
