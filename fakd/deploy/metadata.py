"""What a user of an exported file has to know: classes, colours, and how an image is prepared."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from fakd.data.datasets.colours import colour_map, palette
from fakd.modeling import Segmentor


@dataclass(frozen=True)
class ExportMetadata:
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

    classes: tuple[str, ...]
    colours: tuple[tuple[int, ...], ...]
    input_format: str
    normalize: bool
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    size: tuple[int, int] | None
    base_size: tuple[int, int]
    window: tuple[int, int]
    stride: tuple[int, int]
    precision: str = "float32"

    def as_json(self) -> dict[str, str]:
        """Every attribute as a JSON text."""
        return {name: json.dumps(value) for name, value in asdict(self).items()}


def from_json(text: str) -> Any:
    """A value of :meth:`ExportMetadata.as_json`, with tuples for lists."""

    def tuples(value: Any) -> Any:
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    return tuples(json.loads(text))


def classes_and_colours(cfg: CfgNode) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """Names and RGB colours of the classes of a config's dataset; numbers where it names no dataset.

    Raises:
        ValueError: the dataset is not registered, or has another number of classes than the config.
    """
    number = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    for dataset in [*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN][:1]:
        if dataset not in DatasetCatalog.list():
            raise ValueError(
                f"The dataset '{dataset}' of the config, whose classes the network knows, is not registered. "
                "If one of its PLUGINS does so, give --allow-plugins."
            )
        metadata = MetadataCatalog.get(dataset)
        if len(metadata.stuff_classes) != number:
            raise ValueError(
                f"The dataset '{dataset}' has {len(metadata.stuff_classes)} classes, but "
                f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {number}."
            )
        return tuple(metadata.stuff_classes), tuple(map(tuple, palette(metadata)[:number].tolist()))
    return tuple(map(str, range(number))), tuple(colour_map(number))


def build_metadata(
    cfg: CfgNode, network: Segmentor, size: tuple[int, int] | None, normalize: bool, precision: str
) -> ExportMetadata:
    """The metadata of a student's file; the last three arguments are attributes of the result."""
    classes, colours = classes_and_colours(cfg)
    return ExportMetadata(
        classes=classes,
        colours=colours,
        input_format=network.input_format,
        normalize=normalize,
        pixel_mean=tuple(network.pixel_mean.flatten().tolist()),
        pixel_std=tuple(network.pixel_std.flatten().tolist()),
        size=size,
        base_size=tuple(cfg.INPUT.BASE_SIZE),
        window=tuple(cfg.TEST.WINDOW),
        stride=tuple(cfg.TEST.STRIDE),
        precision=precision,
    )
