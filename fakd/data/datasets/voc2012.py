"""Pascal VOC 2012 (Everingham et al.), 21 classes, trained with the additions of SBD (Hariharan et al.,
2011).

The layout is that of the VOC development kit, ``VOCdevkit/VOC2012``, with
``SegmentationClassAug/<name>.png`` and ``ImageSets/Segmentation/trainaug.txt`` made from both. Validation
needs nothing but what VOC ships.
"""

import os

from .colours import colour_map
from .folders import datasets_root, list_pairs, read_stems

#: split -> number of images.
SPLITS = {"train": 10582, "val": 1449}

NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
CLASSES = tuple(zip(NAMES, colour_map(21), strict=True))
VOID = 255

REMEDY = (
    "Pascal VOC 2012 is expected as VOCdevkit/VOC2012, with SegmentationClassAug and "
    "ImageSets/Segmentation/trainaug.txt for training, below the folder that DETECTRON2_DATASETS names "
    "(default: ./datasets). To make them: fakd data prepare voc2012"
)


def load_voc2012(split: str) -> list[dict]:
    """Lists ``train``, SBD's additions included, or ``val`` as detectron2 dataset dicts.

    Raises:
        FileNotFoundError: a folder, split file or label is missing; the message says how to make it.
    """
    root = os.path.join(datasets_root(), "VOCdevkit", "VOC2012")
    listed, labels = (
        ("trainaug", "SegmentationClassAug") if split == "train" else ("val", "SegmentationClass")
    )
    stems = read_stems(os.path.join(root, "ImageSets", "Segmentation", f"{listed}.txt"), REMEDY)
    images, labelled = (os.path.join(root, part) for part in ("JPEGImages", labels))
    return list_pairs(images, labelled, REMEDY, image_suffix=".jpg", stems=stems)
