"""Whether a dataset is what it should be: every file read once, and a picture to look at."""

import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from tqdm import tqdm

from fakd.checkpoint import atomic_write

from .images import decode, open_image, size_error
from .labels import read_label

_SHOWN = 16  # images on the contact sheet
_TILE = (320, 240)
_MOST_ERRORS = 20


@dataclass(frozen=True)
class Findings:
    """What was found in a dataset without errors.

    Attributes:
        images: their number.
        sizes: smallest and largest (height, width).
        pixels: number of pixels by class name, void last.
        absent: names of the classes that never occur.
    """

    images: int
    sizes: tuple[tuple[int, int], tuple[int, int]]
    pixels: Mapping[str, int]
    absent: list[str]


def check_dataset(name: str, sheet: str | Path | None = None, workers: int = 0) -> Findings:
    """Reads every image and label of a registered dataset.

    Args:
        name: registered, custom or not.
        sheet: png of images under their labels to write.
        workers: processes; 0 takes as many as there are processors.

    Raises:
        KeyError: no dataset has this name.
        FileNotFoundError, ValueError: the dataset is not there, has not the published number of images, or
            files cannot be used; the message names them.
    """
    records, metadata = DatasetCatalog.get(name), MetadataCatalog.get(name)
    published = metadata.get("num_images")
    if published is not None and len(records) != published:
        raise ValueError(f"'{name}' has {len(records)} images here, but {published} were published.")
    num_classes = len(metadata.stuff_classes)
    count = partial(
        _count, num_classes=num_classes, ignore_label=metadata.ignore_label, id_map=metadata.get("id_map")
    )
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        found = list(tqdm(pool.map(count, records, chunksize=8), name, len(records), unit="image"))
    if errors := [each for each in found if isinstance(each, str)]:
        shown = "\n".join(errors[:_MOST_ERRORS])
        raise ValueError(f"'{name}': {len(errors)} of {len(records)} images cannot be used:\n{shown}")
    pixels = sum(found, np.zeros(num_classes + 1, np.int64))
    if sheet is not None:
        _draw_sheet(records, metadata, sheet)
    sizes = sorted((record["height"], record["width"]) for record in records)
    return Findings(
        images=len(records),
        sizes=(sizes[0], sizes[-1]),
        pixels=dict(zip([*metadata.stuff_classes, "(void)"], pixels.tolist(), strict=True)),
        absent=[c for c, number in zip(metadata.stuff_classes, pixels, strict=False) if not number],
    )


def _count(
    record: dict, num_classes: int, ignore_label: int, id_map: Mapping[int, int] | None
) -> np.ndarray | str:
    """Pixels by class, void last; or what is wrong."""
    path = record["sem_seg_file_name"]
    try:
        with open_image(record["file_name"]) as picture:
            size = decode(picture).size[::-1]
            label = read_label(path, ignore_label, -1, id_map)
            if label.shape != size:
                return size_error(record, picture, label)
    except ValueError as error:
        return str(error)
    if label.max() >= num_classes:
        unknown = np.unique(label[label >= num_classes])[:10].tolist()
        return f"The label '{path}' holds the ids {unknown}, but there are {num_classes} classes."
    counts = np.bincount(label.ravel() + 1, minlength=num_classes + 1)
    return np.roll(counts, -1)


def _draw_sheet(records: list[dict], metadata, path: str | Path) -> None:
    """Images spread over the dataset, each half covered by the colours of its label; void stays as it is."""
    colours = np.array(metadata.stuff_colors, np.uint8)
    columns = 4
    chosen = np.linspace(0, len(records) - 1, min(_SHOWN, len(records))).round().astype(int)
    sheet = Image.new("RGB", (columns * _TILE[0], -(-len(chosen) // columns) * _TILE[1]))
    for place, index in enumerate(chosen):
        record = records[index]
        with open_image(record["file_name"]) as picture:
            image = np.array(decode(picture))
        label = read_label(record["sem_seg_file_name"], metadata.ignore_label, -1, metadata.get("id_map"))
        covered = (image[label >= 0] // 2 + colours[label[label >= 0]] // 2).astype(np.uint8)
        image[label >= 0] = covered
        tile = Image.fromarray(image)
        tile.thumbnail(_TILE)
        sheet.paste(tile, (place % columns * _TILE[0], place // columns * _TILE[1]))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        sheet.save(file, format="png")
