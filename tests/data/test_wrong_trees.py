"""What may be wrong with a dataset is told by name, whichever dataset it is."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import trees
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from fakd import add_fakd_config
from fakd.data import SemSegMapper
from fakd.data.check import check_dataset
from fakd.data.datasets.custom import register_custom

OWN = """
root: CamVid
classes: [a, b, c, d, e, f, g, h, i, j, k]
ignore_label: 11
splits:
  train: {images: train, labels: trainannot}
  val: {images: val, labels: valannot}
"""
SAME_FILES = {"own": "camvid", "pascal_context_60": "pascal_context_59"}
NAMES = [*trees.TREES, *SAME_FILES]


@dataclass
class Place:
    """A prepared training set, and the image and label in it that a test spoils."""

    name: str
    image: Path
    label: Path
    unknown: int

    def mapper(self) -> SemSegMapper:
        cfg = get_cfg()
        add_fakd_config(cfg)
        cfg.DATASETS.TRAIN = (self.name,)
        cfg.INPUT.CROP.SIZE = (32, 32)
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = len(MetadataCatalog.get(self.name).stuff_classes)
        return SemSegMapper(cfg)


@pytest.fixture(params=NAMES)
def place(request, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    tree = trees.TREES[SAME_FILES.get(request.param, request.param)]
    tree.make(tmp_path)
    name = f"{request.param}_train"
    if request.param == "own":
        (tmp_path / "own.yaml").write_text(OWN)
        register_custom([str(tmp_path / "own.yaml")])
    else:
        monkeypatch.delattr(MetadataCatalog.get(name), "num_images")  # the published number of images
    yield Place(name, tmp_path / tree.image, tmp_path / tree.label, tree.unknown)
    if request.param == "own":
        for split in ("own_train", "own_val"):
            DatasetCatalog.remove(split)
            MetadataCatalog.remove(split)


def save(label, path):
    Image.fromarray(label).save(path)


def cut_off(path):
    os.truncate(path, path.stat().st_size * 2 // 3)


def dangle(path):
    path.unlink()
    path.symlink_to("nowhere.jpg")


def with_one(place, value, dtype=np.uint8):
    label = np.array(Image.open(place.label)).astype(dtype)
    label[5, 7] = value
    return label


#: What is spoilt, and how both the check and the training name it.
FAULTS = {
    "a truncated image": (lambda p: cut_off(p.image), "Cannot read the image '{image}'"),
    "an image that is none": (lambda p: p.image.write_bytes(b"none"), "Cannot read the image '{image}'"),
    "an image that is a dangling link": (lambda p: dangle(p.image), "Cannot read the image '{image}'"),
    "a truncated label": (lambda p: cut_off(p.label), "Cannot read the label file '{label}'"),
    "an empty label file": (lambda p: p.label.write_bytes(b""), "Cannot read the label file '{label}'"),
    "a missing label": (lambda p: p.label.unlink(), "No label '{label}' for the image '{image}'"),
    "a label of another size": (
        lambda p: save(np.zeros((48, 65), np.uint8), p.label),
        "The image '{image}' is 64x48 pixels (width x height), its label '{label}' 65x48",
    ),
    "a colour label": (lambda p: Image.new("RGB", (64, 48)).save(p.label), "'{label}' has mode 'RGB'"),
    "an unknown id": (lambda p: save(with_one(p, p.unknown), p.label), "'{label}' holds the ids [{unknown}]"),
    "an unknown id of two bytes": (
        lambda p: save(with_one(p, 700, np.uint16), p.label),
        "'{label}' holds the ids [700]",
    ),
}


def test_every_fault_is_named_by_the_check_and_in_training(place):
    originals = {path: path.read_bytes() for path in (place.image, place.label)}
    for fault, (spoil, message) in FAULTS.items():
        spoil(place)
        expected = message.format(**vars(place))
        with pytest.raises((ValueError, FileNotFoundError)) as checked:
            check_dataset(place.name, workers=1)
        assert expected in str(checked.value), fault
        with pytest.raises((ValueError, FileNotFoundError)) as trained:
            mapper = place.mapper()
            for record in DatasetCatalog.get(place.name):
                mapper(record)
        assert expected in str(trained.value), fault
        for path, content in originals.items():
            path.unlink(missing_ok=True)
            path.write_bytes(content)
    assert check_dataset(place.name, workers=1).images >= 2


def test_palettes_and_two_bytes_change_nothing(place):
    counted = check_dataset(place.name, workers=1).pixels
    ids = np.array(Image.open(place.label))
    for label in (ids, ids.astype(np.uint16)):
        picture = Image.fromarray(label)
        if label.dtype == np.uint8:
            picture.putpalette([(5 * i) % 256 for i in range(768)])
        picture.save(place.label)
        assert check_dataset(place.name, workers=1).pixels == counted


def test_what_is_missing_or_empty_is_named_with_the_remedy(place):
    mine = "own.yaml" if place.name == "own_train" else "fakd data prepare|SegNet"
    for emptied in (False, True):
        shutil.rmtree(place.image.parent)
        if emptied:
            place.image.parent.mkdir()
        with pytest.raises(FileNotFoundError, match=rf"'{place.image.parents[1]}.*(?:{mine})"):
            check_dataset(place.name, workers=1)
        place.image.parent.mkdir(exist_ok=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_without_permission_is_named(place):
    for path in (place.image, place.label):
        path.chmod(0)
        with pytest.raises(ValueError, match=f"Cannot read the .*'{path}': .*Permission"):
            check_dataset(place.name, workers=1)
        path.chmod(0o644)


@pytest.mark.parametrize("name", trees.TREES)
def test_a_part_of_a_dataset_is_not_taken_for_the_whole(name, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    trees.TREES[name].make(tmp_path)
    number = MetadataCatalog.get(f"{name}_train").num_images
    with pytest.raises(
        ValueError, match=rf"'{name}_train' has [23] images here, but {number} were published"
    ):
        check_dataset(f"{name}_train", workers=1)
