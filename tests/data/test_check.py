"""What the check of a dataset finds."""

import os
import re

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from fakd.data.check import check_dataset
from fakd.data.datasets.toyscenes import CLASSES, draw_scene

from .conftest import NUM_IMAGES


@pytest.fixture
def small(dataset):
    MetadataCatalog.get("small_test").set(stuff_colors=[list(colour) for _, colour in CLASSES])
    return dataset


def test_a_good_dataset_is_counted_and_drawn(small, tmp_path):
    found = check_dataset("small_test", tmp_path / "sheets" / "small.png", workers=1)
    labels = np.concatenate([draw_scene(seed)[1].ravel() for seed in range(NUM_IMAGES)])
    assert found.images == NUM_IMAGES and found.sizes == ((96, 128), (96, 128))
    assert list(found.pixels.values()) == [(labels == i).sum() for i in [*range(12), 255]]
    assert found.absent == [name for i, (name, _) in enumerate(CLASSES) if not (labels == i).any()]
    sheet = np.asarray(Image.open(tmp_path / "sheets" / "small.png"))
    assert sheet.shape == (4 * 145 + 3 * 24, 6 * 192, 3)  # seven images in two rows, thirteen names in three
    # The second image and its label below it, in the colours of the classes.
    image, label = draw_scene(1)
    palette = np.array([*(colour for _, colour in CLASSES), (0, 0, 0)])
    shown, coloured = sheet[2:143, 194:382], sheet[147:288, 194:382]
    assert abs(shown.mean((0, 1)) - image.mean((0, 1))).max() < 2
    expected = palette[np.where(label == 255, len(CLASSES), label)]
    assert abs(coloured.mean((0, 1)) - expected.mean((0, 1))).max() < 2


def wrong_number(folder):
    MetadataCatalog.get("small_test").set(num_images=8)


def truncated(folder):
    os.truncate(folder / "images" / "3.png", 5000)


def other_size(folder):
    Image.new("L", (5, 4)).save(folder / "labels" / "3.png")


def unknown_id(folder):
    Image.fromarray(np.full((96, 128), 12, np.uint8)).save(folder / "labels" / "3.png")


def sixteen_bits(folder):
    Image.fromarray(np.full((96, 128), 700, np.uint16)).save(folder / "labels" / "3.png")


def colours(folder):
    Image.new("RGB", (128, 96)).save(folder / "labels" / "3.png")


def no_label(folder):
    os.remove(folder / "labels" / "3.png")


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (wrong_number, "has 7 images here, but 8 were published"),
        (truncated, r"1 of 7 images.*\n.*images/3\.png"),
        (other_size, r"images/3\.png' is 128x96 pixels .*labels/3\.png' 5x4"),
        (unknown_id, r"labels/3\.png' holds the ids \[12\], but there are 12 classes"),
        (sixteen_bits, r"labels/3\.png' holds the ids \[700\]"),
        (colours, r"labels/3\.png' has mode 'RGB'"),
        (no_label, r"labels/3\.png"),
    ],
)
def test_what_is_wrong_is_named(small, spoil, error):
    spoil(small)
    with pytest.raises((ValueError, FileNotFoundError), match=error):
        check_dataset("small_test", workers=1)


def _map(old, new):
    return f"'id_map: {{{', '.join(f'{a}: {b}' for a, b in zip(old, new, strict=True))}}}'"


@pytest.mark.parametrize(
    ("ids", "suggested"),
    [
        (range(10, 130, 10), [_map(range(10, 130, 10), range(12))]),
        (
            range(0, 130, 10),
            [
                f"if 0 is void and .* put {_map(range(0, 130, 10), [255, *range(12)])}",
                f"if 120 is void, put {_map(range(0, 130, 10), [*range(12), 255])}",
            ],
        ),
        ([*range(12), 200], [r"yaml: if 200 is void, put 'ignore_label: 200'\.$"]),
        # Void may be the first or the last, and nothing in the files tells which.
        (
            range(13),
            [
                "if 12 is void, put 'ignore_label: 12'",
                f"if 0 is void and .* put {_map(range(13), [255, *range(12)])}",
            ],
        ),
        (range(0, 99, 9), [rf"the ids {re.escape(str(list(range(0, 99, 9))))}:"]),
    ],
)
def test_other_ids_suggest_what_to_write(small, ids, suggested):
    label = np.resize(np.array(list(ids), np.uint8), (96, 128))
    for path in (small / "labels").iterdir():
        Image.fromarray(label).save(path)
    with pytest.raises(ValueError) as error:
        check_dataset("small_test", workers=1)
    last = str(error.value).splitlines()[-1]
    assert all(re.search(each, last) for each in suggested), last


def test_a_palette_is_as_good_as_grey(small):
    path = small / "labels" / "3.png"
    with Image.open(path) as label:
        palette = Image.fromarray(np.array(label))
    palette.putpalette(list(range(256)) * 3)
    palette.save(path)
    assert check_dataset("small_test", workers=1).images == NUM_IMAGES


def test_an_unknown_name_is_an_error():
    with pytest.raises(KeyError, match="nothing"):
        DatasetCatalog.get("nothing")


def test_the_command_ends_with_a_line_that_names_the_file(tool, small):
    description = small / "mine.yaml"
    names = ", ".join(name for name, _ in CLASSES)
    description.write_text(f"classes: [{names}]\nsplits: {{train: {{images: images, labels: labels}}}}\n")
    other_size(small)
    code, text = tool("datasets/check", "--custom", description, "--workers", 1)
    assert code == 1 and "labels/3.png' 5x4" in text.splitlines()[-1]
