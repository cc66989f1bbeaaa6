"""Small trees of files in each dataset's own layout, as its site ships them, and their preparation."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from fakd.data.datasets.cityscapes import LABEL_IDS
from fakd.data.datasets.colours import colour_map
from fakd.data.prepare import ade20k, cityscapes, coco_stuff, pascal_context, voc2012

SIZE = 48, 64  # of every image: height, width


@dataclass(frozen=True)
class Tree:
    """A dataset made small.

    Attributes:
        ship: writes what the site ships below a root.
        prepare: makes of it what is registered; None where nothing has to be made.
        config: a file of ``configs`` that trains on it.
        image, label: of one training image, relative to the root, once prepared.
        unknown: an id that its prepared labels must not hold.
    """

    ship: Callable[[Path], None]
    prepare: Callable[[Path], None] | None
    config: str
    image: str
    label: str
    unknown: int

    def make(self, root: Path) -> None:
        """Everything, as it is when training starts."""
        self.ship(root)
        if self.prepare is not None:
            self.prepare(root)


def picture(path: Path, label: np.ndarray | None = None, palette: bool = False) -> None:
    """Saves a label, or an image of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.RandomState(len(path.name)).randint(0, 256, (*SIZE, 3)).astype(np.uint8)
    saved = Image.fromarray(noise if label is None else label)
    if palette:
        saved.putpalette(np.array(colour_map(256), np.uint8).tobytes())
    saved.save(path)


def text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def matlab(path: Path, **content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, content)


def stripes(ids: Sequence[int]) -> np.ndarray:
    """(H, W) uint8, the ids side by side."""
    height, width = SIZE
    return np.tile(np.resize(np.array(ids, np.uint8), width // 8).repeat(8), (height, 1))


def ship_ade20k(root: Path) -> None:
    for part in ("training", "validation"):
        for stem in "ab":
            picture(root / f"ADEChallengeData2016/images/{part}/{stem}.jpg")
            picture(root / f"ADEChallengeData2016/annotations/{part}/{stem}.png", stripes([0, 1, 150, 3]))


def ship_cityscapes(root: Path) -> None:
    folder = root / "cityscapes"
    for split, city in (("train", "aachen"), ("val", "ulm")):
        for i in range(2):
            picture(folder / f"leftImg8bit/{split}/{city}/{city}_{i}_leftImg8bit.png")
        ids = stripes([0, *LABEL_IDS[:3], LABEL_IDS[-1]])
        picture(folder / f"gtFine/{split}/{city}/{city}_0_gtFine_labelIds.png", ids)
        height, width = SIZE
        corners = [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]
        content = {"imgHeight": height, "imgWidth": width, "objects": [{"label": "sky", "polygon": corners}]}
        text(folder / f"gtFine/{split}/{city}/{city}_1_gtFine_polygons.json", json.dumps(content))


def ship_pascal_context(root: Path) -> None:
    folder = root / "VOCdevkit/VOC2010"
    for split, year in (("train", 2008), ("val", 2009)):
        text(folder / f"ImageSets/Main/{split}.txt", f"{year}_1", f"{year}_2")
        for i in (1, 2):
            picture(folder / f"JPEGImages/{year}_{i}.jpg")
            ids = np.array([2, 458, 1, 9])[stripes([0, 1, 2, 3])].astype(np.uint16)
            matlab(folder / f"trainval/{year}_{i}.mat", LabelMap=ids)


def ship_voc(root: Path) -> None:
    folder, sbd = root / "VOCdevkit/VOC2012", root / "benchmark_RELEASE/dataset"
    text(folder / "ImageSets/Segmentation/train.txt", "a", "b")
    text(folder / "ImageSets/Segmentation/val.txt", "c")
    for stem in "abcd":
        picture(folder / f"JPEGImages/{stem}.jpg")
    for stem in "abc":
        picture(folder / f"SegmentationClass/{stem}.png", stripes([0, 20, 255, 1]), palette=True)
    text(sbd / "train.txt", "a", "c")
    text(sbd / "val.txt", "d")
    for stem in "acd":
        matlab(sbd / f"cls/{stem}.mat", GTcls={"Segmentation": stripes([0, 1, 2]), "Boundaries": [1]})


def ship_coco_stuff(root: Path) -> None:
    for split in ("train2017", "val2017"):
        for stem in ("0001", "0002"):
            picture(root / f"coco/{split}/{stem}.jpg")
            picture(root / f"coco/stuffthingmaps/{split}/{stem}.png", stripes([0, 12, 181, 255]))


def ship_camvid(root: Path) -> None:
    for split in ("train", "val", "test"):
        for stem in "ab":
            picture(root / f"CamVid/{split}/{stem}.png")
            picture(root / f"CamVid/{split}annot/{stem}.png", stripes([0, 3, 10, 11]))


TREES = {
    "ade20k": Tree(
        ship_ade20k,
        lambda root: ade20k.convert_ade20k(root, workers=1),
        "configs/ade20k/pspnet_r18.yaml",
        "ADEChallengeData2016/images/training/b.jpg",
        "ADEChallengeData2016/annotations_detectron2/training/b.png",
        150,
    ),
    "cityscapes": Tree(
        ship_cityscapes,
        lambda root: cityscapes.convert_cityscapes(root, workers=1),
        "configs/cityscapes/pspnet_r18.yaml",
        "cityscapes/leftImg8bit/train/aachen/aachen_1_leftImg8bit.png",
        "cityscapes/gtFine/train/aachen/aachen_1_gtFine_labelTrainIds.png",
        19,
    ),
    "pascal_context_59": Tree(
        ship_pascal_context,
        lambda root: pascal_context.convert_pascal_context(root, workers=1),
        "configs/pascal_context_59/pspnet_r18.yaml",
        "VOCdevkit/VOC2010/JPEGImages/2008_2.jpg",
        "VOCdevkit/VOC2010/SegmentationClassContext/2008_2.png",
        60,
    ),
    "voc2012_aug": Tree(
        ship_voc,
        lambda root: voc2012.convert_voc2012(root, workers=1),
        "configs/voc2012_aug/pspnet_r18.yaml",
        "VOCdevkit/VOC2012/JPEGImages/d.jpg",
        "VOCdevkit/VOC2012/SegmentationClassAug/d.png",
        21,
    ),
    "coco_stuff_164k": Tree(
        ship_coco_stuff,
        coco_stuff.check_coco_stuff,
        "configs/coco_stuff_164k/cirkd_deeplabv3_r18.yaml",
        "coco/train2017/0002.jpg",
        "coco/stuffthingmaps/train2017/0002.png",
        182,
    ),
    "camvid": Tree(
        ship_camvid,
        None,
        "configs/camvid/cirkd_pspnet_r18.yaml",
        "CamVid/train/b.png",
        "CamVid/trainannot/b.png",
        12,
    ),
}
