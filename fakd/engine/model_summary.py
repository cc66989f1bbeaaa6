"""Cost of a network, the maps it offers to distillation, and the ratio of student to teacher."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from tabulate import tabulate

from fakd.modeling import Segmentor

from .provenance import cost


@dataclass(frozen=True)
class ModelSummary:
    """A network at one image size.

    Attributes:
        name: of the config.
        params: parameters in use; without the auxiliary head, which only training has.
        aux_params: parameters of the auxiliary head.
        gmacs: 10^9 multiply-adds of one image, each counted once.
        size: (H, W) of the image.
        stride: of the scores.
        feature_channels: A.
        taps: (channels, h, w) of each map a loss may use, by name.
    """

    name: str
    params: int
    aux_params: int
    gmacs: float
    size: tuple[int, int]
    stride: int
    feature_channels: int
    taps: dict[str, tuple[int, ...]]


def summarize(cfg: CfgNode, name: str, size: tuple[int, int]) -> ModelSummary:
    """Measures the network of a config without computing it, so that any size is quick.

    Args:
        cfg: of a Segmentor.
        name: to call it by.
        size: (H, W) of the image.
    """
    cfg = cfg.clone()
    cfg.MODEL.BACKBONE.PRETRAINED = "none"
    with torch.device("meta"):
        network = Segmentor(cfg).eval()
        params, gmacs = cost(network, size)
        output = network.encode(torch.empty(1, len(network.pixel_mean), *size))
    aux = network.auxiliary_head
    return ModelSummary(
        name=name,
        params=params,
        aux_params=sum(p.numel() for p in aux.parameters()) if aux is not None else 0,
        gmacs=gmacs,
        size=size,
        stride=round(size[0] / output.logits.shape[2]),
        feature_channels=output.feature.shape[1],
        taps={
            **{key: tuple(x.shape[1:]) for key, x in output.stages.items()},
            "feature": tuple(output.feature.shape[1:]),
            "logits": tuple(output.logits.shape[1:]),
        },
    )


def summary_table(summaries: list[ModelSummary]) -> str:
    """A table with one column per network; with two, their ratio beside them."""
    rows: list[list[str]] = [
        ["parameters in use", *(f"{s.params / 1e6:.3f} M" for s in summaries)],
        ["auxiliary head's", *(f"{s.aux_params / 1e6:.3f} M" for s in summaries)],
        ["GFLOPs (multiply-adds)", *(f"{s.gmacs:.2f}" for s in summaries)],
        ["stride of the scores", *(str(s.stride) for s in summaries)],
        ["channels of the feature", *(str(s.feature_channels) for s in summaries)],
        *(
            [name, *("x".join(map(str, s.taps[name])) if name in s.taps else "-" for s in summaries)]
            for name in summaries[0].taps
        ),
    ]
    height, width = summaries[0].size
    header = [f"at {height}x{width}", *(s.name for s in summaries)]
    if len(summaries) == 2:
        header.append("ratio")
        first, second = summaries
        pairs = [(first.params, second.params), (0, 0), (first.gmacs, second.gmacs)]
        for row, (a, b) in zip(rows, pairs, strict=False):
            row.append(f"{b / a:.1f}" if a else "")
    return tabulate(rows, header, disable_numparse=True)
