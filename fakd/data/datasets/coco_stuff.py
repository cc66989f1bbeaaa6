"""COCO-Stuff 164k (Caesar et al., 2018): 80 things and 91 kinds of stuff.

The layout is detectron2's, ``coco/{train2017,val2017}``, with the pixel maps of the dataset's site as they
are, ``coco/stuffthingmaps/{train2017,val2017}/<name>.png``.
"""

import os

from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

from .colours import colour_map
from .folders import datasets_root, list_pairs

#: split -> number of images.
SPLITS = {"train": 118287, "val": 5000}

_STUFF = """
banner blanket branch bridge building-other bush cabinet cage cardboard carpet ceiling-other ceiling-tile
cloth clothes clouds counter cupboard curtain desk-stuff dirt door-stuff fence floor-marble floor-other
floor-stone floor-tile floor-wood flower fog food-other fruit furniture-other grass gravel ground-other hill
house leaves light mat metal mirror-stuff moss mountain mud napkin net paper pavement pillow plant-other
plastic platform playingfield railing railroad river road rock roof rug salad sand sea shelf sky-other
skyscraper snow solid-other stairs stone straw structural-other table tent textile-other towel tree
vegetable wall-brick wall-concrete wall-other wall-panel wall-stone wall-tile wall-wood water-other
waterdrops window-blind window-other wood
""".split()
_THINGS = {entry["id"]: entry["name"] for entry in COCO_CATEGORIES if entry["isthing"]}

CLASSES = tuple(zip((*_THINGS.values(), *_STUFF), colour_map(172)[1:], strict=True))
VOID = 255

#: From the ids of the maps, one less than COCO's, to the classes; the ids that COCO dropped never occur.
ID_MAP = {coco_id - 1: i for i, coco_id in enumerate((*_THINGS, *range(92, 183)))}

REMEDY = (
    "COCO-Stuff is expected as coco/{train2017,val2017} and coco/stuffthingmaps/{train2017,val2017} below "
    "the folder that DETECTRON2_DATASETS names (default: ./datasets). To make it: fakd data "
    "prepare coco_stuff"
)


def load_coco_stuff(split: str) -> list[dict]:
    """Lists one split as detectron2 dataset dicts.

    Raises:
        FileNotFoundError: a folder or label is missing; the message says how to make it.
    """
    root = os.path.join(datasets_root(), "coco")
    images, labels = os.path.join(root, f"{split}2017"), os.path.join(root, "stuffthingmaps", f"{split}2017")
    return list_pairs(images, labels, REMEDY)
