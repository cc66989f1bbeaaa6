"""Pascal Context (Mottaghi et al., 2014): the 59 most frequent of 459 classes, without and with background.

The layout is that of the VOC development kit, ``VOCdevkit/VOC2010``, with
``SegmentationClassContext/<name>.png`` and ``ImageSets/SegmentationContext/{train,val}.txt`` beside what
VOC 2010 ships. The labels hold 0 for background, which is all the rare classes and void to the 59, and 1 to
59 for the classes: one set of files serves both.
"""

import os

from .colours import colour_map
from .folders import datasets_root, list_pairs, read_stems

#: split -> number of images.
SPLITS = {"train": 4998, "val": 5105}

#: Class and its id among the 459.
NAMES = {
    "aeroplane": 2, "bag": 9, "bed": 18, "bedclothes": 19, "bench": 22, "bicycle": 23, "bird": 25, "boat": 31,
    "book": 33, "bottle": 34, "building": 44, "bus": 45, "cabinet": 46, "car": 59, "cat": 65, "ceiling": 68,
    "chair": 72, "cloth": 80, "computer": 85, "cow": 98, "cup": 104, "curtain": 105, "dog": 113, "door": 115,
    "fence": 144, "floor": 158, "flower": 159, "food": 162, "grass": 187, "ground": 189, "horse": 207,
    "keyboard": 220, "light": 232, "motorbike": 258, "mountain": 259, "mouse": 260, "person": 284,
    "plate": 295, "platform": 296, "pottedplant": 308, "road": 324, "rock": 326, "sheep": 347, "shelves": 349,
    "sidewalk": 354, "sign": 355, "sky": 360, "snow": 366, "sofa": 368, "table": 397, "track": 415,
    "train": 416, "tree": 420, "truck": 424, "tvmonitor": 427, "wall": 440, "water": 445, "window": 454,
    "wood": 458,
}  # fmt: skip

CLASSES_60 = tuple(zip(("background", *NAMES), colour_map(60), strict=True))
CLASSES_59 = CLASSES_60[1:]
VOID = 255

#: From the ids of the label files to the 59 classes.
ID_MAP_59 = {0: VOID, **{i + 1: i for i in range(59)}}

REMEDY = (
    "Pascal Context is expected as VOCdevkit/VOC2010/{JPEGImages,SegmentationClassContext} with "
    "ImageSets/SegmentationContext/{train,val}.txt below the folder that DETECTRON2_DATASETS names (default: "
    "./datasets). To make it: fakd data prepare pascal_context"
)


def load_pascal_context(split: str) -> list[dict]:
    """Lists one split as detectron2 dataset dicts.

    Raises:
        FileNotFoundError: a folder, split file or label is missing; the message says how to make it.
    """
    root = os.path.join(datasets_root(), "VOCdevkit", "VOC2010")
    stems = read_stems(os.path.join(root, "ImageSets", "SegmentationContext", f"{split}.txt"), REMEDY)
    images, labelled = (os.path.join(root, part) for part in ("JPEGImages", "SegmentationClassContext"))
    return list_pairs(images, labelled, REMEDY, image_suffix=".jpg", stems=stems)
