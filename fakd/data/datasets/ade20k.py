"""ADE20K (Zhou et al., 2017) as the scene parsing challenge of 2016 released it: 150 classes.

Images and layout are the archive's, ``ADEChallengeData2016/images/{training,validation}``; the labels are
those that detectron2 reads too, ``annotations_detectron2/{training,validation}``, in which "other" is void.
"""

import os

from detectron2.data.datasets.builtin_meta import ADE20K_SEM_SEG_CATEGORIES

from .colours import colour_map
from .folders import datasets_root, list_pairs

#: split -> number of images.
SPLITS = {"train": 20210, "val": 2000}
FOLDERS = {"train": "training", "val": "validation"}

CLASSES = tuple(zip(ADE20K_SEM_SEG_CATEGORIES, colour_map(151)[1:], strict=True))
VOID = 255

REMEDY = (
    "ADE20K is expected as ADEChallengeData2016/{images,annotations_detectron2}/{training,validation} "
    "below the folder that DETECTRON2_DATASETS names (default: ./datasets). To make it: fakd data "
    "prepare ade20k"
)


def load_ade20k(split: str) -> list[dict]:
    """Lists one split as detectron2 dataset dicts.

    Raises:
        FileNotFoundError: a folder or label is missing; the message says how to make it.
    """
    root = os.path.join(datasets_root(), "ADEChallengeData2016")
    parts = ("images", "annotations_detectron2")
    images, labels = (os.path.join(root, part, FOLDERS[split]) for part in parts)
    return list_pairs(images, labels, REMEDY)
