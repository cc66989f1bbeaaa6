"""Strong changes of the student's images over the teacher's."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.data import transforms as T

from fakd.config.checks import check_values
from fakd.data import SemSegMapper
from fakd.data.strong import RandomBlur, RandomCutout, RandomGrey

IMAGE = np.random.RandomState(0).randint(0, 256, (60, 100, 3)).astype(np.uint8)
ALL = ("colour", "blur", "cutout")


def samples(cfg, strong, number=6):
    cfg.INPUT.STRONG = strong
    mapper, found = SemSegMapper(cfg), []
    for seed in range(number):
        np.random.seed(seed)
        found.append(mapper(DatasetCatalog.get("small_test")[seed]))
    return found


def changed(augmentation, image=IMAGE, number=200):
    np.random.seed(0)
    for _ in range(number):
        shown = T.AugInput(image)
        augmentation(shown)
        yield shown.image


def test_the_teacher_sees_what_both_see_without_them_and_labels_stay(cfg, dataset):
    cfg.INPUT.PHOTOMETRIC = True
    for weak, strong in zip(samples(cfg, ()), samples(cfg, ALL), strict=True):
        assert "teacher_image" not in weak
        assert torch.equal(strong["teacher_image"], weak["image"])
        assert torch.equal(strong["sem_seg"], weak["sem_seg"])
        assert strong["image"].shape == weak["image"].shape and strong["image"].dtype == torch.uint8
    assert sum(not torch.equal(x["image"], x["teacher_image"]) for x in samples(cfg, ALL)) >= 5


def test_padding_stays_as_it_is(cfg, dataset):
    cfg.INPUT.SCALE_RANGE, cfg.INPUT.CROP.SIZE = (1.0, 1.0), (120, 160)  # of images of 96 x 128
    for sample in samples(cfg, ALL):
        assert torch.equal(sample["image"][:, 96:], sample["teacher_image"][:, 96:])
        assert torch.equal(sample["image"][:, :, 128:], sample["teacher_image"][:, :, 128:])


def test_a_test_image_is_left_alone(cfg, dataset):
    cfg.INPUT.STRONG = ALL
    sample = SemSegMapper(cfg, is_train=False)(DatasetCatalog.get("small_test")[0])
    assert "teacher_image" not in sample


@pytest.mark.parametrize("channels", [3, 5])
def test_half_of_the_images_lose_one_rectangle_of_2_to_40_percent(channels):
    image = IMAGE if channels == 3 else np.random.RandomState(0).rand(60, 100, 5).astype(np.float32)
    values, shares = np.arange(channels) + 0.25, []
    for found in changed(RandomCutout(values), image):
        mask = (found != image).any(2)
        if mask.any():
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            inside = found[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert (inside == (np.rint(values) if channels == 3 else values.astype(np.float32))).all()
            shares.append(inside[..., 0].size / image[..., 0].size)
    assert 80 < len(shares) < 120
    assert 0.015 < min(shares) < 0.06 and 0.3 < max(shares) < 0.41


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_blur_keeps_the_mean_and_smooths_every_channel(channels):
    image = np.random.RandomState(0).rand(60, 100, channels).astype(np.float32)
    found = [each for each in changed(RandomBlur(), image) if not np.array_equal(each, image)]
    assert 80 < len(found) < 120 and all(each.shape == image.shape for each in found)
    assert all(np.allclose(each.mean((0, 1)), image.mean((0, 1)), atol=0.02) for each in found)
    deviations = np.array([each.std((0, 1)) / image.std((0, 1)) for each in found])
    assert (deviations < 1.001).all() and deviations.min() < 0.2


def test_a_fifth_of_the_images_is_grey():
    found = [each for each in changed(RandomGrey()) if not np.array_equal(each, IMAGE)]
    assert 25 < len(found) < 55
    assert (found[0] == IMAGE.mean(2).round().astype(np.uint8)[..., None]).all()


def test_colours_of_five_channels_are_refused(cfg):
    cfg.INPUT.CHANNELS, cfg.INPUT.STRONG = 5, ("colour", "blur")
    cfg.MODEL.PIXEL_MEAN = cfg.MODEL.PIXEL_STD = [1.0] * 5
    with pytest.raises(ValueError, match="'colour' of INPUT.STRONG is of three channels.*'blur'"):
        check_values(cfg)
    cfg.INPUT.STRONG = ("blur", "cutout")
    check_values(cfg)
