"""Metadata of an exported file: classes, colours, and how an image is prepared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from pydantic import Field, ValidationError, model_validator

from fakd.data.datasets.colours import colour_map, of_hex
from fakd.modeling import Segmentor
from fakd.validation import Strict, parse, validation_message

PRECISIONS = ("float32", "float16", "int8")

_Byte = Annotated[int, Field(ge=0, le=255)]
_Side = Annotated[int, Field(ge=0)]
_Sides = Annotated[tuple[_Side, _Side], Field(strict=False)]
_Channels = Annotated[tuple[float, ...], Field(strict=False, min_length=1)]
_Colour = Annotated[tuple[_Byte, _Byte, _Byte], Field(strict=False)]


class ExportMetadata(Strict):
    """What a user of an exported file has to know; it travels inside of the file.

    Attributes:
        classes: their names, in the order of the scores.
        colours: (K, 3) RGB, 0 to 255.
        input_format: "RGB" or "BGR", the order of the input's channels.
        normalize: whether the network normalises its input itself; then the input is 0 to 255, else
            ``(image - pixel_mean) / pixel_std``.
        pixel_mean: per channel, in the order of ``input_format``.
        pixel_std: likewise.
        size: (H, W) of the input, or None for any.
        base_size: (long side, short side) of the box that images are resized into before, (0, 0) for none.
        window: (height, width) of the windows that larger images are tested in; (0, 0) for whole images.
        stride: (down, right) from window to window.
        precision: "float32", "float16" or "int8".
    """

    classes: tuple[str, ...] = Field(strict=False, min_length=1)
    colours: tuple[_Colour, ...] = Field(strict=False)
    input_format: Literal["RGB", "BGR"]
    normalize: bool
    pixel_mean: _Channels
    pixel_std: _Channels
    size: _Sides | None
    base_size: _Sides
    window: _Sides
    stride: _Sides
    precision: Literal["float32", "float16", "int8"] = "float32"

    @model_validator(mode="after")
    def _fit_together(self) -> ExportMetadata:
        if len(self.colours) != len(self.classes):
            raise ValueError(f"there are {len(self.classes)} classes and {len(self.colours)} colours")
        if len(self.pixel_mean) != len(self.pixel_std):
            raise ValueError("pixel_mean and pixel_std must have a value for each channel")
        if 0 in self.pixel_std or self.size and 0 in self.size or any(self.window) and 0 in self.stride:
            raise ValueError("pixel_std, size and the stride of windows must not be 0")
        return self

    def as_json(self) -> dict[str, str]:
        """Every attribute as a JSON text."""
        return {name: json.dumps(value) for name, value in self.model_dump().items()}


def read_metadata(texts: Mapping[str, str], path: str | Path) -> ExportMetadata:
    """What :meth:`ExportMetadata.as_json` wrote into a file.

    Args:
        texts: by attribute; others are left alone.
        path: of the file, for the error.

    Raises:
        ValueError: an attribute is missing or wrong.
    """
    try:
        content = {name: json.loads(texts[name]) for name in ExportMetadata.model_fields if texts.get(name)}
        return parse(ExportMetadata, content, path)
    except ValueError as error:
        raise ValueError(
            f"'{path}' does not say what its classes and its input are: it is no file of fakd export. {error}"
        ) from error


def classes_and_colours(cfg: CfgNode) -> tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]]:
    """Names and RGB colours of a config's classes; numbers where it names no dataset.

    Raises:
        ValueError: there are more or fewer names than classes, or colours than names; there are none, since
            the training set is not registered; or a colour is none.
    """
    number = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    names = cfg.DATASETS.CLASSES
    if unknown := [] if names else [name for name in cfg.DATASETS.TRAIN if name not in DatasetCatalog.list()]:
        raise ValueError(
            f"The dataset '{unknown[0]}' of the config, whose classes the network knows, is not registered. "
            "If one of its PLUGINS does so, give --allow-plugins, else name them by DATASETS.CLASSES."
        )
    colours = of_hex(cfg.DATASETS.COLOURS)
    for key, values, expected in (("CLASSES", names, number), ("COLOURS", colours, len(names))):
        if values and len(values) != expected:
            raise ValueError(
                f"DATASETS.{key} has {len(values)} entries, but must have {expected}: "
                f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {number}."
            )
    return tuple(names) or tuple(map(str, range(number))), tuple(colours or colour_map(number))


def build_metadata(
    cfg: CfgNode, network: Segmentor, size: tuple[int, int] | None, normalize: bool, precision: str
) -> ExportMetadata:
    """The metadata of a student's file; the last three arguments are attributes of the result.

    Raises:
        ValueError: see :func:`classes_and_colours`; or a value is none that a file may have.
    """
    classes, colours = classes_and_colours(cfg)
    try:
        return ExportMetadata(
            classes=classes,
            colours=colours,
            input_format=network.input_format,  # type: ignore[arg-type]  # checked by the model
            normalize=normalize,
            pixel_mean=tuple(network.pixel_mean.flatten().tolist()),
            pixel_std=tuple(network.pixel_std.flatten().tolist()),
            size=size,
            base_size=tuple(cfg.INPUT.BASE_SIZE),
            window=tuple(cfg.TEST.WINDOW),
            stride=tuple(cfg.TEST.STRIDE),
            precision=precision,  # type: ignore[arg-type]  # likewise
        )
    except ValidationError as error:
        raise ValueError(validation_message(error, "The file's metadata")) from error
