import os

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from fakd.data import SemSegMapper
from fakd.data.datasets.toyscenes import draw_scene


@pytest.fixture
def record(dataset):
    return DatasetCatalog.get("small_test")[2]


def _write_label(record, label: np.ndarray) -> None:
    Image.fromarray(label).save(record["sem_seg_file_name"])


def test_training_samples_are_crops_of_bytes_and_ids(cfg, record):
    before = dict(record)
    sample = SemSegMapper(cfg)(record)
    assert record == before
    assert sample["image"].shape == (3, 64, 72) and sample["image"].dtype == torch.uint8
    assert sample["sem_seg"].shape == (64, 72) and sample["sem_seg"].dtype == torch.int64
    assert {key: sample[key] for key in record} == record


def test_image_and_label_are_cut_alike(cfg, record):
    """A label that repeats the image's content must still do so after the augmentations."""
    label = draw_scene(2)[1]
    Image.fromarray(np.stack([label % 200] * 3, 2)).save(record["file_name"])
    cfg.INPUT.SCALE_RANGE = (2.0, 2.0)
    for seed in range(4):
        np.random.seed(seed)
        sample = SemSegMapper(cfg)(record)
        image, ids = sample["image"][0].long(), sample["sem_seg"] % 200
        assert (image == ids).float().mean() > 0.85  # bilinear mixes ids at borders only


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_channel_order_follows_the_config(cfg, record, image_format):
    cfg.INPUT.FORMAT = image_format
    image = SemSegMapper(cfg, is_train=False)(record)["image"].numpy().transpose(1, 2, 0)
    expected = draw_scene(2)[0]
    np.testing.assert_array_equal(image, expected if image_format == "RGB" else expected[..., ::-1])


def test_testing_takes_the_whole_image_and_reads_no_label(cfg, record):
    os.remove(record["sem_seg_file_name"])
    sample = SemSegMapper(cfg, is_train=False)(record)
    assert "sem_seg" not in sample
    assert sample["image"].shape == (3, 96, 128)
    cfg.INPUT.BASE_SIZE = (64, 64)
    sample = SemSegMapper(cfg, is_train=False)(record)
    assert sample["image"].shape == (3, 48, 64) and (sample["height"], sample["width"]) == (96, 128)


def test_void_of_the_file_becomes_the_configured_void(cfg, record):
    MetadataCatalog.remove("small_test")
    MetadataCatalog.get("small_test").set(stuff_classes=list("abcdefghijkl"), ignore_label=12)
    _write_label(record, np.full((96, 128), 12, np.uint8))
    cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = 200
    assert SemSegMapper(cfg)(record)["sem_seg"].unique().tolist() == [200]


def test_more_classes_than_a_byte_holds(cfg, record):
    MetadataCatalog.remove("small_test")
    MetadataCatalog.get("small_test").set(ignore_label=65535)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 900
    cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = 65535
    _write_label(record, np.full((96, 128), 899, np.uint16))
    assert set(SemSegMapper(cfg)(record)["sem_seg"].unique().tolist()) <= {899, 65535}


def test_a_label_of_another_size_is_refused(cfg, record):
    _write_label(record, np.zeros((96, 127), np.uint8))
    with pytest.raises(ValueError, match=r"images/2\.png' is 128x96 .*labels/2\.png' 127x96"):
        SemSegMapper(cfg)(record)


def test_an_unknown_id_is_refused_by_file_and_value(cfg, record):
    label = draw_scene(2)[1].copy()
    label[5, 5] = 12
    label[6, 6] = 99
    _write_label(record, label)
    with pytest.raises(ValueError, match=r"labels/2\.png' holds the ids \[12, 99\]"):
        SemSegMapper(cfg)(record)


def test_a_truncated_image_is_named(cfg, record):
    os.truncate(record["file_name"], 5000)
    for is_train in (True, False):
        with pytest.raises(ValueError, match=r"Cannot read the image '.*images/2\.png'"):
            SemSegMapper(cfg, is_train=is_train)(record)


def test_a_wrong_number_of_classes_is_refused(cfg, record):
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 19
    with pytest.raises(ValueError, match="'small_test' has 12 classes.*NUM_CLASSES is 19"):
        SemSegMapper(cfg)


def test_datasets_with_different_void_ids_are_not_mixed(cfg):
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 11
    MetadataCatalog.get("other_test").set(ignore_label=255)
    cfg.DATASETS.TRAIN = ("camvid_train", "other_test")
    try:
        with pytest.raises(ValueError, match="different void ids.*'camvid_train': 11"):
            SemSegMapper(cfg)
    finally:
        MetadataCatalog.remove("other_test")
