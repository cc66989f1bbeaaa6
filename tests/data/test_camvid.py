import os
import shutil

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from PIL import Image

from fakd.data import read_label
from fakd.data.datasets.camvid import CLASSES, VOID, load_camvid
from fakd.data.datasets.folders import datasets_root

FOLDER = os.path.join(datasets_root(), "CamVid")
needs_camvid = pytest.mark.skipif(
    not os.path.isdir(FOLDER), reason=f"CamVid is not in '{FOLDER}': set DETECTRON2_DATASETS to its parent"
)
# Percent of all pixels, void last.
SHARES = {
    "train": (16.85, 23.26, 0.98, 31.66, 4.49, 9.72, 1.17, 1.13, 5.87, 0.64, 0.29, 3.95),
    "val": (9.18, 25.96, 0.56, 28.95, 8.72, 16.34, 0.89, 3.08, 1.75, 0.65, 2.22, 1.70),
    "test": (17.07, 24.61, 1.18, 25.81, 9.27, 11.25, 1.01, 1.18, 3.97, 0.63, 0.19, 3.83),
}


@needs_camvid
@pytest.mark.parametrize(("split", "number"), [("train", 367), ("val", 101), ("test", 233)])
def test_splits_are_complete_and_labelled_as_known(split, number):
    records = DatasetCatalog.get(f"camvid_{split}")
    assert len(records) == number
    assert {(record["height"], record["width"]) for record in records} == {(360, 480)}
    counts = sum(
        np.bincount(read_label(r["sem_seg_file_name"], VOID).ravel(), minlength=256) for r in records
    )
    shares = 100 * counts / counts.sum()
    np.testing.assert_allclose([*shares[: len(CLASSES)], shares[255]], SHARES[split], atol=0.01)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A CamVid of two images in ``val``, one of them jpg."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for name in ("val", "valannot"):
        os.makedirs(tmp_path / "CamVid" / name)
    for stem, suffix in (("b", "png"), ("a", "jpg")):
        Image.new("RGB", (6, 4)).save(tmp_path / "CamVid" / "val" / f"{stem}.{suffix}")
        Image.new("L", (6, 4)).save(tmp_path / "CamVid" / "valannot" / f"{stem}.png")
    return tmp_path / "CamVid"


def test_images_may_be_png_or_jpg_and_come_sorted(root):
    first, second = load_camvid("val")
    assert first == {
        "file_name": str(root / "val" / "a.jpg"),
        "sem_seg_file_name": str(root / "valannot" / "a.png"),
        "height": 4,
        "width": 6,
        "image_id": "a",
    }
    assert second["file_name"].endswith("b.png")


def test_a_missing_dataset_names_the_folder_and_the_remedy(root):
    shutil.rmtree(root)
    with pytest.raises(FileNotFoundError) as error:
        DatasetCatalog.get("camvid_val")  # the root is looked up now, not at the import
    assert str(root / "val") in str(error.value)
    assert "DETECTRON2_DATASETS" in str(error.value) and "SegNet" in str(error.value)


def test_a_missing_label_is_named(root):
    os.remove(root / "valannot" / "b.png")
    with pytest.raises(FileNotFoundError, match=r"valannot/b\.png.*val/b\.png"):
        load_camvid("val")


def test_an_empty_folder_is_named(root):
    for name in os.listdir(root / "val"):
        os.remove(root / "val" / name)
    with pytest.raises(FileNotFoundError, match="No png or jpg image in '.*CamVid/val'"):
        load_camvid("val")


def test_an_unreadable_image_is_named(root):
    (root / "val" / "b.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"val/b\.png"):
        load_camvid("val")


def test_two_images_for_one_label_are_refused(root):
    Image.new("RGB", (6, 4)).save(root / "val" / "a.png")
    with pytest.raises(ValueError, match="stem 'a'"):
        load_camvid("val")
