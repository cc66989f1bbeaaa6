import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from fakd.data.datasets import toyscenes
from fakd.data.datasets.toyscenes import CLASSES, VOID, draw_scene
from fakd.data.datasets.toyscenes.random import Dice, smooth_noise

# sha256 of the bytes of image and label, one after the other. A change here needs a new VERSION.
GOLDEN = {
    0: "a8e2deed8cd5cc3e1bf325254a233356719f1a01150fcbfd1a8adb2336fa4c94",
    1: "be852302eaaf7f55bb44327fcce2963eaca954217e5675aa54f04dd00fe635c8",
    2: "1063ea342d82a956d3e234a0b806c892bfeeca98fdf0ba983c48e9f306971229",
    17: "726cad9efd00e4c7a7d29e1cf59582c6eaa0ba485a26a1dfb763c73d81c1d214",
    599: "759a8648dbe3e3b07f69722a964595fe13c607fe1983bba9ced60370f134cf6a",
    100000: "dd920ee056de8f5df4ccb137c70a9580f64b48b0269e69736a07437e541ba1de",
    100199: "578dea4ae1f102d2007789e277e08e317ec96f0eb117b7bc7cb89ac179f23a22",
    4294967295: "4790387448fa5d4a1a2745bb80a8cc3dd363133c066a1e6a0699712126630d3b",
}


@pytest.fixture(scope="module")
def scenes():
    """200 training scenes, images and labels stacked."""
    images, labels = zip(*(draw_scene(seed) for seed in range(200)), strict=True)
    return np.stack(images), np.stack(labels)


@pytest.fixture
def few(monkeypatch, tmp_path):
    """The dataset cut down to five scenes, below an empty root."""
    monkeypatch.setattr(toyscenes, "SPLITS", {"train": range(3), "val": range(3, 5)})
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "root"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "root").mkdir()
    return tmp_path


def _folder(few):
    return few / "root" / "toyscenes" / toyscenes.VERSION


def test_scenes_are_the_same_to_the_byte():
    drawn = {}
    for seed in GOLDEN:
        image, label = draw_scene(seed)
        assert image.shape == (96, 128, 3) and image.dtype == np.uint8
        assert label.shape == (96, 128) and label.dtype == np.uint8
        drawn[seed] = hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest()
    assert drawn == GOLDEN


def test_drawing_leaves_the_global_random_state_alone():
    np.random.seed(3)
    expected = np.random.random_sample()
    np.random.seed(3)
    draw_scene(0)
    assert np.random.random_sample() == expected


def test_every_class_occurs_and_the_frequencies_have_a_long_tail(scenes):
    counts = np.bincount(scenes[1].ravel(), minlength=256)
    assert set(np.flatnonzero(counts)) == {*range(len(CLASSES)), VOID}
    share = counts[: len(CLASSES)] / counts.sum()
    assert share.max() > 15 * share.min()
    assert 0.005 < share.min() < 0.03
    assert 0.005 < counts[VOID] / counts.sum() < 0.05


def test_every_class_occurs_in_the_validation_split():
    seen = {
        int(value) for seed in list(toyscenes.SPLITS["val"])[:60] for value in np.unique(draw_scene(seed)[1])
    }
    assert seen >= set(range(len(CLASSES)))


def test_splits_share_no_scene():
    assert not set(toyscenes.SPLITS["train"]) & set(toyscenes.SPLITS["val"])


def test_colour_alone_does_not_solve_it(scenes):
    images, labels = (np.split(array[:, ::2, ::2], 2) for array in scenes)
    means = np.stack([images[0][labels[0] == k].mean(0) for k in range(len(CLASSES))])
    valid = labels[1] != VOID
    nearest = np.square(images[1][valid][:, None].astype(float) - means).sum(-1).argmin(1)
    truth = labels[1][valid]
    ious = [((nearest == k) & (truth == k)).sum() / ((nearest == k) | (truth == k)).sum() for k in range(12)]
    assert np.mean(ious) < 0.25


def test_smooth_noise_joins_its_knots_bilinearly():
    knots = Dice(5).grid(4, 4)
    noise = smooth_noise(Dice(5), 5, 5, cell=2.0)[:4, :4]
    np.testing.assert_array_equal(noise[::2, ::2], knots[:2, :2])
    assert noise[1, 1] == pytest.approx(knots[:2, :2].mean())


def test_files_hold_the_drawn_scenes(few):
    records = toyscenes.load_toyscenes("val")
    assert [record["image_id"] for record in records] == ["0000", "0001"]
    for seed, record in zip((3, 4), records, strict=True):
        image, label = draw_scene(seed)
        np.testing.assert_array_equal(np.array(Image.open(record["file_name"])), image)
        np.testing.assert_array_equal(np.array(Image.open(record["sem_seg_file_name"])), label)
        assert (record["height"], record["width"]) == label.shape


def test_a_complete_drawing_is_used_again(few):
    first = toyscenes.load_toyscenes("train")
    before = os.stat(first[0]["file_name"]).st_mtime_ns
    assert toyscenes.load_toyscenes("train") == first
    assert os.stat(first[0]["file_name"]).st_mtime_ns == before


@pytest.mark.parametrize("damage", ["truncated", "removed", "no digest"])
def test_a_damaged_drawing_is_drawn_again(few, damage):
    record = toyscenes.load_toyscenes("train")[1]
    if damage == "truncated":
        os.truncate(record["sem_seg_file_name"], 20)
    else:
        os.remove(record["file_name"] if damage == "removed" else _folder(few) / "digest.txt")
    assert toyscenes.load_toyscenes("train")[1] == record
    np.testing.assert_array_equal(np.array(Image.open(record["file_name"])), draw_scene(1)[0])
    np.testing.assert_array_equal(np.array(Image.open(record["sem_seg_file_name"])), draw_scene(1)[1])


def test_an_interrupted_drawing_is_never_used(few, monkeypatch):
    def interrupted(seed):
        if seed == 2:
            raise KeyboardInterrupt
        return draw_scene(seed)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(toyscenes, "draw_scene", interrupted)
        toyscenes.load_toyscenes("train")
    assert not _folder(few).exists()
    assert len(toyscenes.load_toyscenes("train")) == 3
    assert sorted(os.listdir(_folder(few).parent)) == [toyscenes.VERSION, f"{toyscenes.VERSION}.lock"]


def test_processes_that_start_together_draw_once(few, monkeypatch):
    drawn = []
    monkeypatch.setattr(toyscenes, "draw_scene", lambda seed: drawn.append(seed) or draw_scene(seed))
    with ThreadPoolExecutor(4) as pool:  # the lock keeps threads apart as it does processes
        records = list(pool.map(toyscenes.load_toyscenes, ["train"] * 4))
    assert all(record == records[0] for record in records)
    assert sorted(drawn) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("root", ["missing", "read-only"])
def test_the_cache_takes_what_the_root_cannot(few, root):
    if root == "missing":
        os.rmdir(few / "root")
    else:
        os.chmod(few / "root", 0o555)
    record = toyscenes.load_toyscenes("train")[0]
    assert record["file_name"].startswith(str(few / "cache" / "fakd" / "toyscenes"))
    assert not (few / "root" / "toyscenes").exists()
