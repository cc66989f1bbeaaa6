"""Mistakes in a dataset's yaml: one line with the file, the place, what was found and what is allowed."""

import os
import re

import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from fakd.data.datasets.custom import register_custom
from fakd.data.labels import read_label

GOOD = {
    "name": "fault",
    "classes": ["a", "b", "c"],
    "splits": {"train": {"images": "images", "labels": "labels"}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("described")
    for name in ("images", "labels"):
        (folder / name).mkdir()
        Image.fromarray(np.ones((4, 6), np.uint8)).save(folder / name / "0.png")
    return folder


@pytest.fixture
def write(folder):
    """``write(text or keys)``: a yaml; its path."""

    def start(content) -> str:
        path = folder / "mine.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
        return str(path)

    yield start
    for name in [name for name in DatasetCatalog.list() if name.startswith("fault_")]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def refusal(path) -> str:
    """The one line."""
    with pytest.raises((ValueError, OSError)) as error:
        for name in register_custom([path]):
            DatasetCatalog.get(name)
    assert "\n" not in str(error.value) and os.path.basename(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a: [", "cannot be read as yaml"),
        ("", "is None, but must be keys with values"),
        ("- a\n- b\n", "must be keys with values"),
        ("just words", "must be keys with values"),
        ("\0", "cannot be read as yaml"),
        ("a: *b", "cannot be read as yaml"),
        ("classes: !!python/object/apply:os.getcwd []", "cannot be read as yaml"),
    ],
)
def test_what_is_no_description(write, text, error):
    assert error in refusal(write(text))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"classes": 12}, "classes: must be a list of names, or names with colours, not 12"),
        ({"classes": "road"}, "classes: must be a list of names"),
        ({"classes": []}, "classes: must be names, each of them once"),
        ({"classes": [["a"], "b"]}, "classes: must be a list of names"),
        ({"classes": [False, "b"]}, "classes: yaml reads a name as false: put it in quotes"),
        ({"classes": {"a": "red", "b": [0, 0, 0]}}, "the colour of 'a' must be .*, not 'red'"),
        ({"classes": {"a": [0, 0, 256]}}, "the colour of 'a'"),
        ({"clases": 3}, "there is no key 'clases'. Did you mean 'classes'?"),
        ({"id_map": [1, 2]}, r"id_map is \[1, 2\], but must be keys with values"),
        ({"id_map": {"x": 0}}, "id_map"),
        ({"id_map": {1: 3}}, r"id_map says 1: 3; .* a class id in \[0, 3\) or to ignore_label, 255"),
        ({"id_map": {-1: 0}}, "id_map says -1"),
        ({"id_map": {10**9: 0}}, "id_map says 1000000000"),
        ({"ignore_label": "x"}, "ignore_label is 'x', but must be a whole number"),
        ({"ignore_label": -1}, "ignore_label is -1"),
        ({"ignore_label": 2}, "ignore_label is 2, but it must be a number that is no class id"),
        ({"ignore_label": 10**9}, "ignore_label is 1000000000"),
        ({"root": 5}, "root is 5, but must be a text"),
        ({"name": 5}, "name is 5, but must be a text"),
        ({"name": "../../x"}, r"name: '\.\./\.\./x' must begin with a letter"),
        ({"name": "/x"}, "name: '/x' must begin"),
        ({"name": ".x"}, "name: '.x' must begin"),
        ({"name": "a\nb"}, "must begin with a letter or digit"),
        ({"splits": []}, r"splits is \[\], but must be keys with values"),
        ({"splits": {}}, "splits"),
        ({"splits": {"train": None}}, "splits.train is None, but must be keys with values"),
        ({"splits": {"../t": GOOD["splits"]["train"]}}, r"splits: '\.\./t' must begin"),
        ({"splits": {"train": {"images": "images"}}}, "splits.train.labels is missing"),
        ({"splits": {"train": {"images": 3, "labels": "labels"}}}, "splits.train.images: must be a folder"),
        ({"splits": {"train": {"images": [None], "labels": "labels"}}}, "splits.train.images: must be"),
        ({"splits": {"t": GOOD["splits"]["train"] | {"sufix": "x"}}}, "splits.t: there is no key 'sufix'"),
        (
            {"splits": {"t": GOOD["splits"]["train"] | {"image_suffix": 3}}},
            "image_suffix is 3, but must be",
        ),
        ({"splits": {"t": {"images": "none", "labels": "labels"}}}, r"No folder '.*none'.*mine\.yaml"),
        ({"splits": {"t": {"images": "labels/0.png", "labels": "labels"}}}, "no text file of paths"),
        ({"splits": {"t": {"images": ["images/1.png"], "labels": ["labels/0.png"]}}}, "No file '.*1.png'"),
        ({"splits": {"t": GOOD["splits"]["train"] | {"label_suffix": "_x.png"}}}, "No label '.*0_x.png'"),
        ({"splits": {"t": GOOD["splits"]["train"] | {"image_suffix": "_x.png"}}}, r"No '\*_x.png' in"),
    ],
)
def test_what_is_wrong_in_a_description(write, changes, error):
    found = refusal(write(GOOD | changes))
    assert re.search(error, found), found


def test_a_file_s_own_name_may_not_be_a_dataset_s(folder):
    path = folder / ".yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in GOOD.items() if key != "name"}))
    assert "the file's own name" in refusal(str(path))


def test_negative_ids_of_a_label_are_refused(tmp_path):
    path = tmp_path / "label.tif"
    Image.fromarray(np.array([[0, 1], [-1, 2]], np.int32)).save(path)
    with pytest.raises(ValueError, match=r"label\.tif' holds negative ids, down to -1"):
        read_label(str(path))


def test_an_id_of_four_bytes_takes_no_table_of_its_size(tmp_path):
    path = tmp_path / "label.tif"
    Image.fromarray(np.array([[0, 1], [2**31 - 1, 2]], np.int32)).save(path)
    with pytest.raises(ValueError, match=r"label\.tif' holds the ids \[1, 2, 2147483647\], which the id map"):
        read_label(str(path), id_map={0: 0})
