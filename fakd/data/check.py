"""Checks a dataset: reads every file once and draws a contact sheet."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from PIL import Image, ImageDraw, ImageFont, ImageOps
from tqdm import tqdm

from fakd.files import atomic_write

from .bands import is_array, read_array, read_shown
from .datasets.colours import palette
from .images import decode, open_image, size_error
from .labels import read_label
from .selection import evenly_spaced

SHOWN = 18  # images on the contact sheet
_COLUMNS, _TILE, _GAP, _LINE = 6, (192, 145), 4, 24
_MOST_NAMES = 60  # of classes in the legend
_MOST_ERRORS = 20


@dataclass(frozen=True)
class DatasetReport:
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


@dataclass(frozen=True)
class _Problem:
    """Why an image cannot be used, and all ids of its label if some of them are unknown."""

    message: str
    ids: frozenset[int] = frozenset()


def check_dataset(
    name: str, sheet: str | Path | None = None, workers: int = 0, images: int = SHOWN
) -> DatasetReport:
    """Reads every image and label of a registered dataset.

    Args:
        name: registered, custom or not.
        sheet: png of images above their labels to write.
        workers: processes; 0 takes as many as there are processors.
        images: their number on the sheet.

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
        _count,
        num_classes=num_classes,
        ignore_label=metadata.ignore_label,
        id_map=metadata.get("id_map"),
        channels=metadata.get("channels", 3),
    )
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        found = list(tqdm(pool.map(count, records, chunksize=8), name, len(records), unit="image"))
    if problems := [each for each in found if isinstance(each, _Problem)]:
        shown = "\n".join(problem.message for problem in problems[:_MOST_ERRORS])
        hint = _suggest_map(found, num_classes, metadata.ignore_label)
        raise ValueError(f"'{name}': {len(problems)} of {len(records)} images cannot be used:\n{shown}{hint}")
    pixels = sum(found, np.zeros(num_classes + 1, np.int64))
    if sheet is not None:
        draw_sheet(records, metadata, sheet, images)
    sizes = sorted((record["height"], record["width"]) for record in records)
    return DatasetReport(
        images=len(records),
        sizes=(sizes[0], sizes[-1]),
        pixels=dict(zip([*metadata.stuff_classes, "(void)"], pixels.tolist(), strict=True)),
        absent=[c for c, number in zip(metadata.stuff_classes, pixels, strict=False) if not number],
    )


def _count(
    record: dict, num_classes: int, ignore_label: int, id_map: Mapping[int, int] | None, channels: int
) -> np.ndarray | _Problem:
    """Pixels by class, void last; or what is wrong."""
    path = record.get("sem_seg_file_name")
    try:
        with _opened(record["file_name"], channels) as (picture, size):
            if path is None:  # an image without a label, as if all of it were void
                return np.append(np.zeros(num_classes, np.int64), size[0] * size[1])
            label = read_label(path, ignore_label, -1, id_map)
            if label.shape != size:
                return _Problem(size_error(record, picture, label))
    except ValueError as error:
        return _Problem(str(error))
    if label.max() >= num_classes:
        ids = np.unique(label[label >= 0]).tolist()
        unknown = [i for i in ids if i >= num_classes][:10]
        message = f"The label '{path}' holds the ids {unknown}, but there are {num_classes} classes."
        return _Problem(message, frozenset(ids))
    counts = np.bincount(label.ravel() + 1, minlength=num_classes + 1)
    return np.roll(counts, -1)


@contextlib.contextmanager
def _opened(path: str, channels: int) -> Iterator[tuple[Image.Image | np.ndarray, tuple[int, int]]]:
    """An image that was read whole, and its height and width."""
    if is_array(path, channels):
        values = read_array(path, channels)
        yield values, values.shape[:2]
        return
    with open_image(path) as picture:
        yield picture, decode(picture).size[::-1]


def _suggest_map(found: list[np.ndarray | _Problem], num_classes: int, void: int) -> str:
    """A sentence for labels whose ids are as many as the classes, or one more, but others."""
    problems = [each for each in found if isinstance(each, _Problem)]
    if not any(problem.ids for problem in problems):
        return ""
    ids = set().union(*(problem.ids for problem in problems))
    for each in found:
        if isinstance(each, np.ndarray):
            ids |= set(np.flatnonzero(each[:-1]).tolist())
    inorder, classes = sorted(ids), list(range(num_classes))
    if len(ids) == num_classes:
        id_map = _map(inorder, classes)
        return f"\nIf these are the classes in their order, put {id_map} into the dataset's yaml."
    if len(ids) != num_classes + 1:
        return f"\nThe labels hold the ids {inorder}: id_map in the dataset's yaml leads to class ids."
    first, last = inorder[0], inorder[-1]
    void_first = f"if {first} is void and the others are the classes in their order, put "
    void_first += _map(inorder, [void, *classes])
    if inorder[:-1] != classes:
        void_last = f"if {last} is void, put {_map(inorder, [*classes, void])}"
        return f"\nInto the dataset's yaml: {void_first}; {void_last}."
    # The ids as they are need no map; only those without a gap may be meant otherwise.
    other = f"; {void_first}" if last == num_classes else ""
    return f"\nInto the dataset's yaml: if {last} is void, put 'ignore_label: {last}'{other}."


def _map(old: list[int], new: list[int]) -> str:
    return f"'id_map: {{{', '.join(f'{a}: {b}' for a, b in zip(old, new, strict=True))}}}'"


def draw_sheet(records: list[dict], metadata: Metadata, path: str | Path, number: int = SHOWN) -> None:
    """Images spread over the dataset, each above its label in the colours of the classes; void is black."""
    chosen = evenly_spaced(records, number)
    legend = [
        *zip(metadata.stuff_classes, map(tuple, palette(metadata).tolist()), strict=False),
        ("void", (0, 0, 0)),
    ]
    colours = np.array([colour for _, colour in legend], np.uint8)
    rows = -(-len(chosen) // _COLUMNS)
    names = len(legend) if len(legend) <= _MOST_NAMES else 0
    height = 2 * rows * _TILE[1] + -(-names // _COLUMNS) * _LINE
    sheet = Image.new("RGB", (_COLUMNS * _TILE[0], height), "white")
    for place, record in enumerate(chosen):
        image = Image.fromarray(read_shown(record["file_name"]))
        label = np.full((1, 1), -1)
        if "sem_seg_file_name" in record:
            label = read_label(record["sem_seg_file_name"], metadata.ignore_label, -1, metadata.get("id_map"))
        row, column = divmod(place, _COLUMNS)
        for part, tile in enumerate((image, Image.fromarray(colours[label]))):
            # Enlarged without interpolation, so that the files' pixels are visible.
            smooth = part == 0 and tile.width > _TILE[0]
            how = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
            fitted = ImageOps.contain(tile, (_TILE[0] - _GAP, _TILE[1] - _GAP), how)
            sheet.paste(fitted, (column * _TILE[0] + _GAP // 2, (2 * row + part) * _TILE[1] + _GAP // 2))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for place, (name, colour) in enumerate(legend[:names]):
        row, column = divmod(place, _COLUMNS)
        x, y = column * _TILE[0] + 8, 2 * rows * _TILE[1] + row * _LINE + 6
        pen.rectangle((x, y, x + 14, y + 12), colour, "grey")
        pen.text((x + 22, y - 3), name, "black", font)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        sheet.save(file, format="png", optimize=True)
