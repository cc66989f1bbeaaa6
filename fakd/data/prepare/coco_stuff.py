"""COCO-Stuff 164k: its maps are used as they are, so there is nothing to convert, only to fetch and find."""

from pathlib import Path

from ..datasets.coco_stuff import SPLITS
from .common import fetch, need

IMAGES = "http://images.cocodataset.org/zips/{split}2017.zip"
# As TensorFlow Datasets records them, url_checksums/coco2017.txt.
SHA256 = {
    "train": "sha256:69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
    "val": "sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
}
MAPS = "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip"
REMEDY = (
    f"Fetch {IMAGES.format(split='train')} (18 GB) and {IMAGES.format(split='val')} (0.8 GB) and unpack "
    f"them in the folder 'coco'; fetch {MAPS} (0.7 GB) and unpack it in 'coco/stuffthingmaps'. Or call "
    "this again with --download."
)


def check_coco_stuff(root: Path, download: bool = False) -> None:
    """Checks that images and maps are where they are read.

    Raises:
        FileNotFoundError: a folder is missing.
    """
    folder = root / "coco"
    if download:
        for split in SPLITS:
            fetch(IMAGES.format(split=split), folder, SHA256[split])
        # No checksum of the maps is published: unpacking checks that of every file.
        fetch(MAPS, folder / "stuffthingmaps")
    for split in SPLITS:
        need(folder / f"{split}2017", REMEDY)
        need(folder / "stuffthingmaps" / f"{split}2017", REMEDY)
