"""What timm's networks do as backbones: at which strides their maps are, and which images they take."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import timm
import torch

from .timm_backbone import TimmBackbone

OUTPUT_STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class Survey:
    """Of one network.

    Attributes:
        name: timm's.
        strides: of the maps, finest first, for every one of OUTPUT_STRIDES; empty if it is not a backbone.
        images: "any size", "some sizes" (windows or patches must divide them), "224x224 alone" or "none".
    """

    name: str
    strides: tuple[tuple[int, ...], ...]
    images: str

    def __str__(self) -> str:
        """A row of the table in docs/models.md."""
        own = ", ".join(map(str, self.strides[-1])) if self.strides else "gives no maps"
        honoured = [
            "yes" if row[-1] == wanted else "**no**"
            for row, wanted in zip(self.strides[:-1], OUTPUT_STRIDES, strict=False)
        ]
        return f"| `{self.name}` | {own} | {' | '.join(honoured or ['-', '-'])} | {self.images} |"


TABLE_HEAD = """| network | its own strides | honours `OUTPUT_STRIDE` 8 | 16 | images |
|---|---|---|---|---|"""


def families() -> Iterator[str]:
    """One network of every family of timm's: of those named after it, the one with the shortest name."""
    for module in timm.list_modules():
        names = timm.list_models(module=module)
        named = [name for name in names if name.replace("_", "").startswith(module.replace("_", ""))]
        if names:
            yield min(named or names, key=lambda name: (len(name), name))


def survey(name: str) -> Survey:
    """Builds a network at every output stride, without memory for weights, and shows it images.

    Raises:
        ValueError: timm does not know the name.
    """
    if not timm.is_model(name):
        raise ValueError(f"timm has no network '{name}'.")
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)  # the table holds what the warnings say
    try:
        strides = tuple(_strides(name, stride) for stride in OUTPUT_STRIDES)
        return Survey(name, strides if all(strides) else (), _images(name) if all(strides) else "none")
    finally:
        logging.disable(previous)


def _build(name: str, output_stride: int) -> TimmBackbone | None:
    try:
        with torch.device("meta"):
            return TimmBackbone(name=name, output_stride=output_stride).eval()
    except (RuntimeError, AttributeError, TypeError, ValueError, NotImplementedError, AssertionError):
        return None  # timm's errors for a network that gives no maps


def _strides(name: str, output_stride: int) -> tuple[int, ...]:
    backbone = _build(name, output_stride)
    return tuple(shape.stride for shape in backbone.output_shape().values()) if backbone else ()


def _images(name: str) -> str:
    backbone = _build(name, 32)
    assert backbone is not None
    height, width = backbone.net.pretrained_cfg["input_size"][1:]  # type: ignore[index]
    if _takes(backbone, (96, 160)):
        return "any size"
    # What windows, patches and blocks divide.
    if _takes(backbone, (448, 672)) or _takes(backbone, (2 * height, 3 * width)):
        return "some sizes"
    return f"{height}x{width} alone" if _takes(backbone, (height, width)) else "none"


def _takes(backbone: TimmBackbone, size: tuple[int, int]) -> bool:
    """Whether the maps of an image of (height, width) have the sizes that their strides promise."""
    try:
        maps = backbone(torch.empty(1, 3, *size, device="meta"))
    except (RuntimeError, ValueError, AssertionError, IndexError):
        return False
    shapes = backbone.output_shape()
    return all(abs(maps[key].shape[2] * shapes[key].stride - size[0]) < shapes[key].stride for key in maps)
