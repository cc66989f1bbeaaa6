"""Cityscapes (Cordts et al., 2016), fine annotations: driving video of 2048x1024, 19 classes.

The layout is that of the site's archives, ``cityscapes/{leftImg8bit,gtFine}/{train,val}/<city>``; the
labels are the ``*_gtFine_labelTrainIds.png`` that the archives leave to be made.
"""

import os

from .folders import datasets_root, list_pairs

#: split -> number of images.
SPLITS = {"train": 2975, "val": 500}

#: (name, colour), in the order of the train ids.
CLASSES = (
    ("road", (128, 64, 128)),
    ("sidewalk", (244, 35, 232)),
    ("building", (70, 70, 70)),
    ("wall", (102, 102, 156)),
    ("fence", (190, 153, 153)),
    ("pole", (153, 153, 153)),
    ("traffic light", (250, 170, 30)),
    ("traffic sign", (220, 220, 0)),
    ("vegetation", (107, 142, 35)),
    ("terrain", (152, 251, 152)),
    ("sky", (70, 130, 180)),
    ("person", (220, 20, 60)),
    ("rider", (255, 0, 0)),
    ("car", (0, 0, 142)),
    ("truck", (0, 0, 70)),
    ("bus", (0, 60, 100)),
    ("train", (0, 80, 100)),
    ("motorcycle", (0, 0, 230)),
    ("bicycle", (119, 11, 32)),
)
VOID = 255

#: The ids of the classes in ``*_labelIds.png``, in the order of the train ids; all other ids are void.
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

REMEDY = (
    "Cityscapes is expected as cityscapes/{leftImg8bit,gtFine}/{train,val}/<city> below the folder that "
    "DETECTRON2_DATASETS names (default: ./datasets), with the *_gtFine_labelTrainIds.png. To make these: "
    "fakd data prepare cityscapes"
)


def load_cityscapes(split: str) -> list[dict]:
    """Lists one split as detectron2 dataset dicts.

    Raises:
        FileNotFoundError: a folder or label is missing; the message says how to make it.
    """
    root = os.path.join(datasets_root(), "cityscapes")
    return list_pairs(
        os.path.join(root, "leftImg8bit", split),
        os.path.join(root, "gtFine", split),
        REMEDY,
        image_suffix="_leftImg8bit.png",
        label_suffix="_gtFine_labelTrainIds.png",
    )
