"""COCO-Stuff 164k: its maps are used as they are, so there is nothing to convert, only to fetch and find."""

from pathlib import Path

from ..datasets.coco_stuff import SPLITS
from .common import fetch, need

IMAGES = "http://images.cocodataset.org/zips/{split}2017.zip"
MAPS = "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip"
REMEDY = (
    f"Fetch {IMAGES.format(split='train')} (18 GB) and {IMAGES.format(split='val')} (0.8 GB) and unpack "
    f"them in the folder 'coco'; fetch {MAPS} (0.7 GB) and unpack it in 'coco/stuffthingmaps'. Or call "
    "this again with --download."
)


def prepare(root: Path, download: bool = False) -> None:
    """Sees that images and maps lie where they are read.

    Raises:
        FileNotFoundError: a folder is missing.
    """
    folder = root / "coco"
    if download:
        for split in SPLITS:
            fetch(IMAGES.format(split=split), folder)
        fetch(MAPS, folder / "stuffthingmaps")
    for split in SPLITS:
        need(folder / f"{split}2017", REMEDY)
        need(folder / "stuffthingmaps" / f"{split}2017", REMEDY)
