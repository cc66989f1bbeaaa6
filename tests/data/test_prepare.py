"""Small trees in each dataset's own layout, prepared and read back through their registered names."""

import functools
import hashlib
import json
import os
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from trees import matlab, picture, text

from fakd.commands.data import PREPARED
from fakd.data.datasets.cityscapes import LABEL_IDS
from fakd.data.datasets.colours import colour_map
from fakd.data.labels import read_label
from fakd.data.prepare import ade20k, cityscapes, coco_stuff, pascal_context, voc2012
from fakd.data.prepare.common import fetch

IDS = np.array([[0, 1, 2], [3, 2, 1]], np.uint8)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return tmp_path


def labels_of(name) -> dict[str, list]:
    """Class ids by image, as the mapper and the evaluator read them."""
    metadata = MetadataCatalog.get(name)
    return {
        record["image_id"]: read_label(record["sem_seg_file_name"], id_map=metadata.id_map).tolist()
        for record in DatasetCatalog.get(name)
    }


def make_ade20k(root) -> None:
    for part in ("training", "validation"):
        picture(root / "ADEChallengeData2016/images" / part / "a.jpg")
        picture(root / "ADEChallengeData2016/annotations" / part / "a.png", IDS)


def test_ade20k_loses_its_zero_label(root):
    make_ade20k(root)
    ade20k.convert_ade20k(root, workers=1)
    assert labels_of("ade20k_train") == labels_of("ade20k_val") == {"a": [[255, 0, 1], [2, 1, 0]]}
    original = root / "ADEChallengeData2016/annotations/training/a.png"
    np.testing.assert_array_equal(read_label(str(original)), IDS)


def test_a_second_call_makes_only_what_is_missing(root):
    make_ade20k(root)
    ade20k.convert_ade20k(root, workers=1)
    made = sorted((root / "ADEChallengeData2016/annotations_detectron2").glob("*/*.png"))
    kept = made[0].stat().st_mtime_ns
    made[1].unlink()
    ade20k.convert_ade20k(root, workers=1)
    assert made[1].exists() and made[0].stat().st_mtime_ns == kept
    assert not list(root.rglob("*.partial"))


def test_a_bad_original_is_named_and_the_rest_is_kept(root):
    make_ade20k(root)
    bad = root / "ADEChallengeData2016/annotations/validation/b.png"
    picture(bad, np.full((2, 3), 151, np.uint8))
    with pytest.raises(ValueError, match=r"validation/b\.png' holds the id 151"):
        ade20k.convert_ade20k(root, workers=1)
    assert len(labels_of("ade20k_train")) == 1


def test_cityscapes_from_label_ids_and_from_polygons(root):
    folder = root / "cityscapes"
    for split, city in (("train", "aachen"), ("val", "ulm")):
        picture(folder / "leftImg8bit" / split / city / f"{city}_0_leftImg8bit.png")
    ids = np.array([[7, 8, 33], [0, 29, 26]], np.uint8)
    picture(folder / "gtFine/train/aachen/aachen_0_gtFine_labelIds.png", ids)
    square = [[0, 0], [2, 0], [2, 1], [0, 1]]
    objects = [
        {"label": "sky", "polygon": square},
        {"label": "cargroup", "polygon": [[0, 0], [0, 1], [0, 0]]},
        {"label": "static", "polygon": [[2, 0], [2, 1], [2, 0]]},
        {"label": "road", "deleted": 1, "polygon": square},
    ]
    path = folder / "gtFine/val/ulm/ulm_0_gtFine_polygons.json"
    text(path, json.dumps({"imgHeight": 2, "imgWidth": 3, "objects": objects}))
    cityscapes.convert_cityscapes(root, workers=1)
    assert labels_of("cityscapes_train") == {"aachen/aachen_0": [[0, 1, 18], [255, 255, 13]]}
    assert labels_of("cityscapes_val") == {"ulm/ulm_0": [[13, 10, 255], [13, 10, 255]]}
    assert len(LABEL_IDS) == 19


def test_pascal_context_serves_59_and_60_classes(root):
    folder = root / "VOCdevkit/VOC2010"
    for split, stem in (("train", "2008_1"), ("val", "2008_2")):
        text(folder / f"ImageSets/Main/{split}.txt", stem)
        picture(folder / f"JPEGImages/{stem}.jpg")
        matlab(folder / f"trainval/{stem}.mat", LabelMap=np.array([[2, 458, 1], [0, 9, 459]], np.uint16))
    pascal_context.convert_pascal_context(root, workers=1)
    assert labels_of("pascal_context_59_train") == {"2008_1": [[0, 58, 255], [255, 1, 255]]}
    assert labels_of("pascal_context_60_val") == {"2008_2": [[1, 59, 0], [0, 2, 0]]}


def test_pascal_context_with_another_list_of_names_is_refused(root):
    text(root / "VOCdevkit/VOC2010/labels.txt", "1: accordion", "2: air conditioner")
    with pytest.raises(ValueError, match=r"labels\.txt' calls label 2 'air conditioner', not 'aeroplane'"):
        pascal_context.convert_pascal_context(root, workers=1)


def make_voc(root) -> None:
    folder, sbd = root / "VOCdevkit/VOC2012", root / "benchmark_RELEASE/dataset"
    for stem in "abcd":
        picture(folder / f"JPEGImages/{stem}.jpg")
    text(folder / "ImageSets/Segmentation/train.txt", "a", "b")
    text(folder / "ImageSets/Segmentation/val.txt", "c")
    void = np.array([[0, 20, 255], [1, 1, 1]], np.uint8)
    picture(folder / "SegmentationClass/a.png", void, palette=True)
    picture(folder / "SegmentationClass/c.png", void, palette=True)
    colours = np.array([*colour_map(21), (224, 224, 192)], np.uint8)
    picture(folder / "SegmentationClass/b.png", colours[np.where(void == 255, 21, void)])
    text(sbd / "train.txt", "a", "c")
    text(sbd / "val.txt", "d")
    for stem in "acd":
        matlab(sbd / f"cls/{stem}.mat", GTcls={"Segmentation": IDS, "Boundaries": [1]})


def test_voc_and_sbd_become_one_training_set_without_validation_images(root):
    make_voc(root)
    voc2012.convert_voc2012(root, workers=1)
    void = [[0, 20, 255], [1, 1, 1]]
    assert labels_of("voc2012_aug_train") == {"a": void, "b": void, "d": IDS.tolist()}
    assert labels_of("voc2012_aug_val") == {"c": void}


def test_a_colour_that_is_not_voc_s_and_a_broken_mat_are_named(root):
    make_voc(root)
    path = root / "VOCdevkit/VOC2012/SegmentationClass/b.png"
    picture(path, np.full((2, 3, 3), 7, np.uint8))
    with pytest.raises(ValueError, match=r"b\.png' holds the colours \['#070707'\]"):
        voc2012.read_colours(str(path))
    broken = root / "benchmark_RELEASE/dataset/cls/d.mat"
    os.truncate(broken, 100)
    with pytest.raises(ValueError, match=r"Cannot read GTcls.Segmentation of '.*d\.mat'"):
        voc2012.convert_label(str(broken), str(root / "x.png"))
    assert not (root / "x.png").exists()


def test_coco_stuff_is_read_as_it_is_shipped(root):
    for split in ("train2017", "val2017"):
        picture(root / "coco" / split / "0001.jpg")
        ids = np.array([[0, 12, 89], [91, 181, 255]], np.uint8)
        picture(root / "coco/stuffthingmaps" / split / "0001.png", ids)
    coco_stuff.check_coco_stuff(root)
    assert labels_of("coco_stuff_164k_val") == {"0001": [[0, 11, 79], [80, 170, 255]]}


@pytest.mark.parametrize(
    ("convert", "remedy"),
    [
        (ade20k.convert_ade20k, ade20k.REMEDY),
        (cityscapes.convert_cityscapes, cityscapes.REMEDY),
        (coco_stuff.check_coco_stuff, coco_stuff.REMEDY),
        (pascal_context.convert_pascal_context, pascal_context.REMEDY),
        (voc2012.convert_voc2012, voc2012.REMEDY),
    ],
)
def test_what_is_missing_is_named_with_what_to_fetch(root, convert, remedy):
    with pytest.raises(FileNotFoundError) as error:
        convert(root)
    assert str(root) in str(error.value) and remedy in str(error.value)


REGISTERED = [
    "ade20k",
    "cityscapes",
    "pascal_context_59",
    "pascal_context_60",
    "voc2012_aug",
    "coco_stuff_164k",
]


@pytest.mark.parametrize("name", REGISTERED)
def test_an_unprepared_dataset_names_its_tool(root, name):
    with pytest.raises(FileNotFoundError, match="DETECTRON2_DATASETS.*fakd data prepare ") as error:
        DatasetCatalog.get(f"{name}_train")
    assert str(error.value).split("fakd data prepare ")[-1] in PREPARED


@pytest.fixture
def site(tmp_path_factory):
    """A folder and the address at which it is served."""
    folder = tmp_path_factory.mktemp("site")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_archive_is_fetched_checked_and_unpacked_and_a_bad_one_named(site, tmp_path):
    folder, address = site
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("made/file.txt", "content")
    right = f"sha256:{hashlib.sha256((folder / 'a.zip').read_bytes()).hexdigest()}"
    (tmp_path / "a.zip.partial").write_text("what an interrupted download leaves")
    fetch(f"{address}/a.zip", tmp_path, right)
    assert (tmp_path / "made" / "file.txt").read_text() == "content"
    (folder / "a.zip").unlink()
    fetch(f"{address}/a.zip", tmp_path, right)  # it is there: the site is not asked
    os.truncate(tmp_path / "a.zip", 60)
    with pytest.raises(ValueError, match=r"a\.zip' is not what was published: its sha256 is .*Delete it"):
        fetch(f"{address}/a.zip", tmp_path, right)
    with pytest.raises(ValueError, match=r"Cannot unpack '.*a\.zip'.*Delete it"):
        fetch(f"{address}/a.zip", tmp_path)
    with pytest.raises(OSError, match="404"):
        fetch(f"{address}/nothing.zip", tmp_path)
    assert not (tmp_path / "nothing.zip").exists()
