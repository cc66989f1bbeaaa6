import numpy as np
import pytest
from detectron2.data import transforms as T
from PIL import Image

from fakd.data import RandomScale
from fakd.data.augmentations import RandomScaledCrop, ScaledCropTransform
from fakd.data.images import as_array, decode, open_image
from fakd.data.photometric import PhotometricDistortion

COARSE = np.random.RandomState(0).randint(0, 256, (9, 12, 3)).astype(np.uint8)
IMAGE = np.asarray(Image.fromarray(COARSE).resize((120, 90), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("scaled", [(180, 240), (90, 120), (41, 55)])
def test_a_scaled_crop_is_the_crop_of_the_scaled_image(scaled):
    transform = ScaledCropTransform((90, 120), scaled, 7, 11, (30, 40))
    whole = T.ResizeTransform(90, 120, *scaled)
    difference = transform.apply_image(IMAGE).astype(int) - whole.apply_image(IMAGE)[7:37, 11:51]
    assert abs(difference).max() <= 1
    label = IMAGE[..., 0]
    same = transform.apply_segmentation(label) == whole.apply_segmentation(label)[7:37, 11:51]
    assert same.mean() > 0.9  # where a sample falls between two pixels, rounding chooses


def test_a_jpeg_decoded_at_a_fraction_shows_the_same(tmp_path):
    Image.fromarray(IMAGE).resize((960, 720)).save(tmp_path / "a.jpg", quality=95)
    crops = []
    for factor in (1.0, 0.2):
        with open_image(str(tmp_path / "a.jpg")) as picture:
            image = decode(picture, factor)
        crops.append(
            as_array(ScaledCropTransform((720, 960), (144, 192), 20, 30, (64, 64)).cut(image), "RGB")
        )
    assert image.size == (240, 180)
    assert np.abs(crops[0].astype(int) - crops[1]).mean() < 2


def test_scales_come_in_steps():
    np.random.seed(0)
    scale = RandomScale(0.5, 2.0, step=0.1)
    widths = {scale.get_transform(IMAGE).new_w for _ in range(400)}
    assert widths == {round(12 * k) for k in range(5, 21)}


def test_a_crop_that_one_class_fills_is_drawn_anew():
    label = np.zeros((100, 100), np.uint8)
    label[:, 70:] = 1
    label[:10] = 255

    def shares(max_share):
        np.random.seed(0)
        crop = RandomScaledCrop(RandomScale(1.0, 1.0), (30, 30), max_share)
        cuts = [crop.get_transform(label, label).apply_segmentation(label) for _ in range(100)]
        return np.array([max((cut == 0).sum(), (cut == 1).sum()) / (cut != 255).sum() for cut in cuts])

    assert (shares(1.0) >= 0.75).mean() > 0.4 > 0.2 > (shares(0.75) >= 0.75).mean()


def test_colours_change_within_bounds_and_labels_do_not():
    np.random.seed(0)
    grey = np.full((4, 4, 3), 100, np.uint8)
    values = []
    for _ in range(300):
        transform = PhotometricDistortion("RGB").get_transform(grey)
        values.append(transform.apply_image(grey))
        np.testing.assert_array_equal(transform.apply_segmentation(grey[..., 0]), grey[..., 0])
    values = np.array(values)
    assert values.dtype == np.uint8
    assert 34 <= values.min() < 60 and 150 < values.max() <= 198  # (100 - 32) / 2 and (100 + 32) * 1.5
    assert (values == 100).all(axis=(1, 2, 3)).mean() > 0.1


def test_the_channel_order_decides_what_hue_means():
    np.random.seed(3)
    rgb = PhotometricDistortion("RGB").get_transform(IMAGE).apply_image(IMAGE)
    np.random.seed(3)
    bgr = (
        PhotometricDistortion("BGR").get_transform(IMAGE).apply_image(np.ascontiguousarray(IMAGE[..., ::-1]))
    )
    np.testing.assert_array_equal(rgb, bgr[..., ::-1])
