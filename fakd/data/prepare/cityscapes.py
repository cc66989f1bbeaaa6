"""Cityscapes: the train ids, from the label ids or, where these are missing, drawn from the polygons."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..datasets.cityscapes import LABEL_IDS, SPLITS, VOID
from ..labels import map_ids, read_label
from .common import convert_all, need, write_label

REMEDY = (
    "Log in at www.cityscapes-dataset.com, fetch leftImg8bit_trainvaltest.zip (11 GB) and "
    "gtFine_trainvaltest.zip (241 MB) and unpack both in the folder 'cityscapes'. The site asks for an "
    "account, so there is no download."
)

_TRAIN_IDS = {i: VOID for i in range(34)} | {VOID: VOID} | {old: new for new, old in enumerate(LABEL_IDS)}

#: The label ids by the polygons' names; all other names are void.
_NAMES = dict(
    zip(
        (
            "road",
            "sidewalk",
            "building",
            "wall",
            "fence",
            "pole",
            "traffic light",
            "traffic sign",
            "vegetation",
        )
        + ("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
        range(len(LABEL_IDS)),
        strict=True,
    )
)


def convert_cityscapes(root: Path, workers: int = 0) -> None:
    """Writes ``*_gtFine_labelTrainIds.png`` beside ``*_gtFine_labelIds.png`` and ``*_gtFine_polygons.json``.

    Raises:
        FileNotFoundError, ValueError: a folder or file is missing, or a label is not as shipped; the message
            names it.
    """
    folder = root / "cityscapes"
    jobs = []
    for split in SPLITS:
        images = need(folder / "leftImg8bit" / split, REMEDY)
        labels = need(folder / "gtFine" / split, REMEDY)
        for image in sorted(images.glob("*/*_leftImg8bit.png")):
            stem = labels / image.parent.name / image.name.removesuffix("_leftImg8bit.png")
            source = Path(f"{stem}_gtFine_labelIds.png")
            if not source.exists():
                source = need(f"{stem}_gtFine_polygons.json", REMEDY)
            jobs.append((str(source), f"{stem}_gtFine_labelTrainIds.png"))
    convert_all(jobs, convert_label, "Cityscapes", workers)


def convert_label(source: str, target: str) -> None:
    """Writes one label of train ids, from a picture of label ids or from polygons.

    Raises:
        ValueError: ``source`` holds what Cityscapes has not.
    """
    if source.endswith(".json"):
        label = draw_polygons(source)
    else:
        label = map_ids(read_label(source), _TRAIN_IDS, source)
    write_label(label, target)


def draw_polygons(path: str) -> np.ndarray:
    """(H, W) train ids. Later polygons lie on top of earlier ones; a group counts as what it is a group of.

    Raises:
        ValueError: the file is not one of Cityscapes' annotations.
    """
    try:
        given = json.loads(Path(path).read_text())
        picture = Image.new("L", (given["imgWidth"], given["imgHeight"]), VOID)
        pen = ImageDraw.Draw(picture)
        for thing in given["objects"]:
            if not thing.get("deleted"):
                name = thing["label"]
                colour = _NAMES.get(name, _NAMES.get(name.removesuffix("group"), VOID))
                pen.polygon([tuple(point) for point in thing["polygon"]], fill=colour)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"'{path}' is not a polygon file of Cityscapes: {error!r}") from error
    return np.array(picture)
