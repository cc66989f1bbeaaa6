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


def test_datasets_of_one_training_have_their_classes_in_one_order(cfg):
    classes = MetadataCatalog.get("camvid_train").stuff_classes
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = len(classes)
    MetadataCatalog.get("other_test").set(ignore_label=11, stuff_classes=[*classes[1:], classes[0]])
    cfg.DATASETS.TRAIN = ("camvid_train", "other_test")
    try:
        with pytest.raises(
            ValueError, match=f"'other_test' has.*another order: class 0 is '{classes[1]}' there"
        ):
            SemSegMapper(cfg)
    finally:
        MetadataCatalog.remove("other_test")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_images_of_other_modes_become_colour(cfg, record, mode):
    suffix = "tif" if mode == "CMYK" else "png"
    record = record | {"file_name": record["file_name"].replace("png", suffix)}
    Image.fromarray(draw_scene(2)[0]).convert(mode).save(record["file_name"])
    image = SemSegMapper(cfg, is_train=False)(record)["image"]
    assert image.shape == (3, 96, 128)
    assert abs(image.float().mean() - draw_scene(2)[0].mean()) < 20
    assert SemSegMapper(cfg)(record)["image"].shape == (3, 64, 72)


def test_an_image_of_sixteen_bits_is_refused_and_not_shown_white(cfg, record):
    Image.fromarray(np.full((96, 128), 3000, np.uint16)).save(record["file_name"])
    for is_train in (True, False):
        with pytest.raises(ValueError, match=r"images/2\.png': its mode is 'I;16'.*Convert it to 8 bits"):
            SemSegMapper(cfg, is_train=is_train)(record)


@pytest.mark.parametrize("orientation", [1, 2, 3, 6, 8])
def test_an_image_is_turned_as_its_exif_data_says_and_its_label_is_not(cfg, record, orientation):
    """What a camera wrote sideways is shown upright, and the label is of what is shown."""
    label = draw_scene(2)[1] % 200
    path = record["file_name"].replace("png", "jpg")
    shown = Image.fromarray(np.stack([label * 20] * 3, 2).astype(np.uint8))
    back = {2: 0, 3: 3, 6: 2, 8: 4}  # Pillow's names of the opposite turns
    stored = shown.transpose(back[orientation]) if orientation in back else shown
    exif = stored.getexif()
    exif[274] = orientation
    stored.save(path, quality=95, exif=exif)
    cfg.INPUT.SCALE_RANGE, cfg.INPUT.CROP.SIZE, cfg.INPUT.RANDOM_FLIP = (1.0, 1.0), (96, 128), "none"
    sample = SemSegMapper(cfg)(record | {"file_name": path})
    valid = sample["sem_seg"] != 255
    assert ((sample["image"][0].long() - 20 * sample["sem_seg"]).abs()[valid] < 25).float().mean() > 0.9
    np.testing.assert_array_equal(
        SemSegMapper(cfg, is_train=False)(record | {"file_name": path})["image"], sample["image"]
    )


def test_a_label_drawn_on_the_stored_pixels_of_a_turned_image_is_explained(cfg, record):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(draw_scene(2)[0]).save(record["file_name"], exif=exif)
    with pytest.raises(ValueError, match=r"96x128 pixels \(width x height, turned as its EXIF data says\)"):
        SemSegMapper(cfg)(record)


def test_void_of_another_dataset_is_an_unknown_id(cfg, record):
    MetadataCatalog.remove("small_test")
    MetadataCatalog.get("small_test").set(stuff_classes=list("abcdefghijkl"), ignore_label=12)
    _write_label(record, np.full((96, 128), 255, np.uint8))
    with pytest.raises(ValueError, match=r"labels/2\.png' holds the ids \[255\].*void id 12"):
        SemSegMapper(cfg)(record)


def test_a_picture_beyond_pillow_s_limit_is_named(cfg, record, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"Cannot read the image '.*images/2\.png': Image size \(12288"):
        SemSegMapper(cfg)(record)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (2000, 3)])
def test_images_of_extreme_shapes_become_crops(cfg, record, size):
    Image.new("RGB", size, (9, 9, 9)).save(record["file_name"])
    _write_label(record, np.full(size[::-1], 3, np.uint8))
    for base in ((0, 0), (64, 64)):
        cfg.INPUT.BASE_SIZE = base
        sample = SemSegMapper(cfg)(record)
        assert sample["image"].shape == (3, 64, 72)
        assert set(sample["sem_seg"].unique().tolist()) <= {3, 255} and (sample["sem_seg"] == 3).any()
        assert min(SemSegMapper(cfg, is_train=False)(record)["image"].shape) >= 1
