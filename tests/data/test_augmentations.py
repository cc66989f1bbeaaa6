import numpy as np
import pytest
from detectron2.data import transforms as T

from fakd.data import RandomScale, build_augmentations

IMAGE = np.random.RandomState(0).randint(0, 256, (60, 100, 3)).astype(np.uint8)


def _sizes(augmentation, number=200):
    np.random.seed(0)
    transforms = [augmentation.get_transform(IMAGE) for _ in range(number)]
    return np.array([(t.new_h, t.new_w) for t in transforms])


def test_scale_keeps_the_aspect_and_fills_its_range():
    sizes = _sizes(RandomScale(0.5, 2.0))
    np.testing.assert_allclose(sizes[:, 0] / 60, sizes[:, 1] / 100, atol=0.02)
    factors = sizes[:, 1] / 100
    assert 0.5 <= factors.min() < 0.55 and 1.95 < factors.max() <= 2.0
    assert abs(factors.mean() - 1.25) < 0.1


@pytest.mark.parametrize(
    ("low", "high", "step", "factors"),
    [
        (0.5, 2.0, 0.4, [0.5, 0.9, 1.3, 1.7]),
        (0.5, 2.0, 0.25, [0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]),
        (0.5, 2.0, 5.0, [0.5]),
        (0.7, 1.0, 0.1, [0.7, 0.8, 0.9, 1.0]),  # in floats the range has less than three steps
    ],
)
def test_a_step_stays_in_its_range(low, high, step, factors):
    sizes = _sizes(RandomScale(low, high, (1000, 1000), step))
    np.testing.assert_array_equal(np.unique(sizes[:, 1]), [round(1000 * factor) for factor in factors])


@pytest.mark.parametrize("step", [1e-6, 5e-324, -0.1])
def test_an_impossible_step_is_refused(step):
    with pytest.raises(ValueError, match="SCALE_STEP"):
        RandomScale(0.5, 2.0, step=step)


@pytest.mark.parametrize(
    ("box", "size"), [((200, 90), (90, 150)), ((90, 200), (90, 150)), ((50, 50), (30, 50))]
)
def test_base_size_is_a_box_the_image_is_fitted_into(box, size):
    assert tuple(_sizes(RandomScale(1.0, 1.0, box), 1)[0]) == size


@pytest.mark.parametrize("scale_range", [(0.0, 1.0), (2.0, 1.0)])
def test_an_impossible_range_is_refused(scale_range):
    with pytest.raises(ValueError, match="SCALE_RANGE"):
        RandomScale(*scale_range)


def test_small_images_are_padded_with_mean_and_void(cfg):
    cfg.INPUT.SCALE_RANGE = (1.0, 1.0)
    cfg.INPUT.CROP.SIZE = (80, 120)
    cfg.INPUT.RANDOM_FLIP = "none"
    aug_input = T.AugInput(IMAGE, sem_seg=np.zeros((60, 100), np.uint8))
    T.AugmentationList(build_augmentations(cfg, True))(aug_input)
    assert aug_input.image.shape == (80, 120, 3)
    np.testing.assert_array_equal(aug_input.image[:60, :100], IMAGE)
    assert np.all(aug_input.image[60:] == round(np.mean(cfg.MODEL.PIXEL_MEAN)))
    assert np.all(aug_input.sem_seg[60:] == 255) and np.all(aug_input.sem_seg[:, 100:] == 255)
    assert np.all(aug_input.sem_seg[:60, :100] == 0)


def test_crops_are_placed_freely_in_both_directions(cfg):
    cfg.INPUT.SCALE_RANGE = (1.0, 1.0)
    cfg.INPUT.CROP.SIZE = (20, 20)
    cfg.INPUT.RANDOM_FLIP = "none"
    rows, columns = np.mgrid[:60, :100].astype(np.uint8)
    augmentations = T.AugmentationList(build_augmentations(cfg, True))
    np.random.seed(1)
    corners = []
    for _ in range(300):
        aug_input = T.AugInput(np.stack([rows, columns, rows], 2))
        augmentations(aug_input)
        corners.append(aug_input.image[0, 0, :2])
    y, x = np.array(corners).T
    assert y.min() <= 2 and y.max() >= 38 and x.min() <= 3 and x.max() >= 77
    assert abs(np.corrcoef(y, x)[0, 1]) < 0.2


def test_an_unknown_flip_is_refused(cfg):
    cfg.INPUT.RANDOM_FLIP = "diagonal"
    with pytest.raises(ValueError, match="RANDOM_FLIP"):
        build_augmentations(cfg, True)


def test_outside_training_only_the_base_size_counts(cfg):
    assert build_augmentations(cfg, False) == []
    cfg.INPUT.BASE_SIZE = (50, 50)
    state = np.random.get_state()[1].copy()
    (scale,) = build_augmentations(cfg, False)
    assert scale.get_transform(IMAGE).new_w == 50
    np.testing.assert_array_equal(np.random.get_state()[1], state)
