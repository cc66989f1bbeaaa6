"""Written predictions, read back."""

import json
import os

import numpy as np
import pycocotools.mask
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.events import EventStorage
from PIL import Image

from fakd.evaluation import PredictionWriter
from fakd.evaluation.predictions import PredictionImages

LABEL = np.array([[0, 0, 1], [2, 2, 2]])


@pytest.fixture
def name():
    colours = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    MetadataCatalog.get("written").set(stuff_classes=["a", "b", "c"], stuff_colors=colours, ignore_label=255)
    yield "written"
    MetadataCatalog.remove("written")


def write(name, folder, formats):
    writer = PredictionWriter(name, folder, formats)
    scores = torch.nn.functional.one_hot(torch.from_numpy(LABEL), 3).permute(2, 0, 1).float()
    writer.process([{"image_id": "town/7", "file_name": "7.jpg"}], [{"sem_seg": scores}])
    assert writer.evaluate() is None


def test_a_picture_holds_the_ids_and_the_palette(name, tmp_path):
    write(name, tmp_path, ("png",))
    with Image.open(tmp_path / "town" / "7.png") as picture:
        np.testing.assert_array_equal(np.array(picture), LABEL)
        assert picture.convert("RGB").getpixel((2, 0)) == (4, 5, 6)
    assert not list(tmp_path.glob("*.json"))


def test_ids_are_those_of_the_dataset_s_label_files(name, tmp_path):
    MetadataCatalog.get(name).set(id_map={0: 255, 7: 0, 8: 1, 9: 1, 33: 2})
    write(name, tmp_path, ("png",))
    with Image.open(tmp_path / "town" / "7.png") as picture:
        np.testing.assert_array_equal(np.array(picture), [[7, 7, 8], [33, 33, 33]])


def test_run_lengths_are_coco_s(name, tmp_path):
    write(name, tmp_path, ("json",))
    entries = json.loads((tmp_path / "sem_seg_predictions.json").read_text())
    assert [entry["category_id"] for entry in entries] == [0, 1, 2]
    for entry in entries:
        assert entry["file_name"] == "7.jpg"
        mask = pycocotools.mask.decode(entry["segmentation"])
        np.testing.assert_array_equal(mask, entry["category_id"] == LABEL)


def test_an_unknown_format_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match="TEST.SAVE knows png and json, not bmp"):
        PredictionWriter(name, tmp_path, ("png", "bmp"))


def test_an_image_whose_name_is_no_utf_8_is_shown(name, tmp_path):
    file = str(tmp_path / os.fsdecode(b"caf\xe9.png"))
    Image.fromarray(LABEL.astype(np.uint8)).save(file)
    image = {"image_id": os.fsdecode(b"caf\xe9"), "file_name": file}
    DatasetCatalog.register(name, lambda: [{**image, "sem_seg_file_name": file}])
    try:
        images = PredictionImages(name)
    finally:
        DatasetCatalog.remove(name)
    images.process([image], [{"sem_seg": torch.zeros(3, *LABEL.shape)}])
    with EventStorage() as storage:
        images.evaluate()
    assert [tag.encode() for tag, _, _ in storage._vis_data] == [rb"written/caf\udce9"]
