import os

import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from fakd.config import load_config, load_teacher_config
from fakd.data import SemSegMapper, build_train_loader
from fakd.data.datasets.custom import register_custom
from fakd.data.datasets.folders import datasets_root
from fakd.deploy.metadata import classes_and_colours

from .conftest import NUM_IMAGES, write_pairs

CLASSES = [f"class {i}" for i in range(12)]


@pytest.fixture
def describe(tmp_path):
    """``describe(KEY=value)``: writes a description of seven scenes and returns its path."""
    write_pairs(tmp_path, NUM_IMAGES)
    path = tmp_path / "mine.yaml"

    def write(**changes) -> str:
        splits = {"train": {"images": "images", "labels": "labels"}}
        given = {"name": "mine", "classes": CLASSES, "splits": splits} | changes
        path.write_text(
            yaml.safe_dump({key: value for key, value in given.items() if value is not None}, sort_keys=False)
        )
        return str(path)

    return write


def test_a_description_becomes_a_dataset(describe, tmp_path):
    assert register_custom([describe(ignore_label=254)]) == ["mine_train"]
    records = DatasetCatalog.get("mine_train")
    assert [record["image_id"] for record in records] == [str(i) for i in range(NUM_IMAGES)]
    assert records[0]["sem_seg_file_name"] == str(tmp_path / "labels" / "0.png")
    metadata = MetadataCatalog.get("mine_train")
    assert metadata.stuff_classes == CLASSES and metadata.ignore_label == 254
    assert len({tuple(colour) for colour in metadata.stuff_colors}) == 12


def test_a_config_brings_its_datasets_into_any_process(describe):
    opts = ["DATASETS.CUSTOM", describe(), "DATASETS.TRAIN", "('mine_train',)", "SOLVER.IMS_PER_BATCH", 2]
    cfg = load_config("", opts)
    assert cfg.DATASETS.CUSTOM == (describe(),)
    DatasetCatalog.remove("mine_train")  # as in a process that was only given the config
    register_custom(cfg.DATASETS.CUSTOM)
    cfg.defrost()
    cfg.DATALOADER.NUM_WORKERS = 1
    batch = next(iter(build_train_loader(cfg)))
    assert len(batch) == 2 and batch[0]["sem_seg"].shape == (512, 512)


def test_a_changed_file_is_read_anew_and_registering_twice_is_harmless(describe):
    register_custom([describe()])
    register_custom([describe(classes={name: [i, 0, 0] for i, name in enumerate(CLASSES)})])
    assert MetadataCatalog.get("mine_train").stuff_colors[3] == [3, 0, 0]


def test_a_run_knows_its_classes_when_their_file_is_changed_or_gone(describe, tmp_path, caplog):
    colours = {name: [i, 0, 7] for i, name in enumerate(CLASSES)}
    chosen = ["DATASETS.TRAIN", "('mine_train',)", "DATASETS.TEST", "()"]
    opts = ["DATASETS.CUSTOM", describe(classes=colours), *chosen]
    (tmp_path / "config.yaml").write_text(load_config("", opts).dump())
    describe(classes=[f"renamed {name}" for name in CLASSES])
    assert classes_and_colours(load_config("", opts))[0][3] == "renamed class 3"
    (tmp_path / "mine.yaml").unlink()
    DatasetCatalog.remove("mine_train")
    names, found = classes_and_colours(load_config(str(tmp_path / "config.yaml")))
    assert list(names) == CLASSES and found[3] == (3, 0, 7)
    assert "there is no file" in caplog.text and "no dataset of that file can be read" in caplog.text
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_config("", opts)


def test_a_teacher_of_the_same_data_elsewhere_is_taken(describe, tmp_path):
    """It was trained with a copy of the description, of the same name."""
    cfg = load_config("", ["DATASETS.CUSTOM", describe(), "DATASETS.TRAIN", "('mine_train',)"])
    (tmp_path / "run").mkdir()
    (tmp_path / "mine.yaml").rename(tmp_path / "run" / "mine.yaml")
    cfg.DATASETS.CUSTOM = (str(tmp_path / "run" / "mine.yaml"),)
    (tmp_path / "run" / "config.yaml").write_text(cfg.dump())
    cfg.DATASETS.CUSTOM, cfg.KD.TEACHER.CONFIG_FILE = (describe(),), str(tmp_path / "run" / "config.yaml")
    assert load_teacher_config(cfg).DATASETS.CLASSES == cfg.DATASETS.CLASSES == tuple(CLASSES)
    assert MetadataCatalog.get("mine_train").custom_file == str(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("opts", "told"),
    [
        (("DATASETS.CLASSES", "('a','b')"), "DATASETS.CLASSES has 2 entries, but must have 12"),
        (("DATASETS.COLOURS", "('#000000',)"), "DATASETS.COLOURS has 1 entries, but must have 12"),
        (("DATASETS.COLOURS", "('black',)"), "'black' is no colour"),
        (("DATASETS.TRAIN", "('absent',)"), "'absent' of the config.*--allow-plugins.*DATASETS.CLASSES"),
    ],
)
def test_classes_that_are_none_are_refused(opts, told):
    with pytest.raises(ValueError, match=told):
        classes_and_colours(load_config("", opts))


def test_ids_are_mapped_and_unmapped_ones_refused(describe, cfg, tmp_path):
    label = np.array([[0, 30], [200, 31]], np.uint8).repeat(48, 0).repeat(64, 1)
    Image.fromarray(label).save(tmp_path / "labels" / "0.png")
    register_custom([describe(classes=["a", "b"], id_map={30: 0, 200: 1, 0: 255, 31: 255})])
    cfg.DATASETS.TRAIN, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = ("mine_train",), 2
    cfg.INPUT.SCALE_RANGE, cfg.INPUT.CROP.SIZE, cfg.INPUT.RANDOM_FLIP = (1.0, 1.0), (96, 128), "none"
    first, second = DatasetCatalog.get("mine_train")[:2]
    ids = SemSegMapper(cfg)(first)["sem_seg"]
    np.testing.assert_array_equal(ids[::48, ::64], [[255, 0], [1, 255]])
    with pytest.raises(ValueError, match=r"labels/1\.png' holds the ids \[.*\], which the id map lacks"):
        SemSegMapper(cfg)(second)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_lists_and_files_of_paths_are_taken_in_their_order(describe, tmp_path, encoding):
    (tmp_path / "images.txt").write_text("images/3.png\nimages/1.png\n", encoding)
    labels = ["labels/3.png", "labels/1.png"]
    register_custom([describe(splits={"some": {"images": "images.txt", "labels": labels}})])
    records = DatasetCatalog.get("mine_some")
    assert [os.path.basename(record["sem_seg_file_name"]) for record in records] == ["3.png", "1.png"]


@pytest.mark.parametrize("root", ["~/scenes", "$HOME/scenes", "scenes", "."])
def test_a_root_may_begin_at_home(describe, tmp_path, monkeypatch, root):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "scenes").symlink_to(".")
    register_custom([describe(root=root)])
    assert len(DatasetCatalog.get("mine_train")) == NUM_IMAGES


def test_suffixes_and_subfolders(describe, tmp_path):
    for folder, source, name in (("x", "images", "0_rgb.png"), ("y", "labels", "0_ids.png")):
        os.makedirs(tmp_path / folder / "town")
        os.rename(tmp_path / source / "0.png", tmp_path / folder / "town" / name)
    entry = {"images": "x", "labels": "y", "image_suffix": "_rgb.png", "label_suffix": "_ids.png"}
    register_custom([describe(splits={"all": entry})])
    assert [record["image_id"] for record in DatasetCatalog.get("mine_all")] == ["town/0"]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"clases": []}, "no key 'clases'. Did you mean 'classes'"),
        ({"classes": None}, "classes is missing"),
        ({"classes": ["a", "a"]}, "each of them once"),
        ({"classes": ["a", " "]}, "classes: ' ' is no name"),
        ({"classes": ["a", ""]}, "classes: '' is no name"),
        ({"classes": ["a", "b\nc"]}, r"classes: 'b\\nc' is no name"),
        ({"classes": {"a": [1, 2]}}, "colour of 'a'"),
        ({"ignore_label": 3}, "ignore_label is 3"),
        ({"id_map": {1: 12}}, r"id_map says 1: 12.*\[0, 12\)"),
        ({"splits": {"val": {"images": "images"}}}, r"splits\.val\.labels is missing"),
        ({"splits": []}, "splits"),
        ({"name": "camvid", "splits": {"val": {"images": "a", "labels": "b"}}}, "'camvid_val' is taken"),
    ],
)
def test_a_wrong_description_is_refused_by_file_and_key(describe, changes, error):
    with pytest.raises((ValueError, KeyError), match=rf"mine\.yaml.*{error}"):
        register_custom([describe(**changes)])


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ({"images": "nothing", "labels": "labels"}, r"No folder '.*nothing'.*mine\.yaml', splits: val"),
        ({"images": "images", "labels": ["labels/0.png"]}, "both be folders or both be lists"),
        ({"images": ["images/0.png"], "labels": []}, "1 images and 0 labels"),
        ({"images": "images", "labels": "images"}, r"images/0\.png' are the same file.*image_suffix"),
        ({"images": ["images/9.png"], "labels": ["labels/9.png"]}, r"No file '.*images/9\.png'.*mine\.yaml"),
    ],
)
def test_missing_files_are_named_with_the_description(describe, entry, error):
    register_custom([describe(splits={"val": entry})])
    with pytest.raises((ValueError, FileNotFoundError), match=error):
        DatasetCatalog.get("mine_val")


def test_a_missing_description_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"DATASETS\.CUSTOM.*none\.yaml"):
        load_config("", ["DATASETS.CUSTOM", str(tmp_path / "none.yaml")])


@pytest.mark.skipif(not os.path.isdir(os.path.join(datasets_root(), "CamVid")), reason="CamVid is not here")
def test_camvid_described_as_one_s_own_data_is_camvid():
    register_custom(["configs/camvid/custom.yaml"])
    own = DatasetCatalog.get("street_val")
    assert [os.path.realpath(r["sem_seg_file_name"]) for r in own] == [
        os.path.realpath(r["sem_seg_file_name"]) for r in DatasetCatalog.get("camvid_val")
    ]


def test_links_that_lead_back_and_pipes_are_passed_over(describe, tmp_path):
    for folder in ("images", "labels"):
        os.makedirs(tmp_path / "all" / "more" / folder)
        os.rename(tmp_path / folder / "0.png", tmp_path / "all" / "more" / folder / "0.png")
        for link, target in (("a", "."), ("b", ".")):
            os.symlink(target, tmp_path / "all" / "more" / folder / link)
        os.mkfifo(tmp_path / "all" / "more" / folder / "1.png")
    entry = {"images": "all/more/images", "labels": "all/more/labels"}
    register_custom([describe(splits={"val": entry})])
    assert [record["image_id"] for record in DatasetCatalog.get("mine_val")] == ["0"]


def test_a_broken_link_is_named_and_not_passed_over(describe, tmp_path):
    os.symlink("nothing", tmp_path / "images" / "8.png")
    os.symlink("0.png", tmp_path / "labels" / "8.png")
    register_custom([describe()])
    with pytest.raises((ValueError, FileNotFoundError), match=r"images/8\.png"):
        DatasetCatalog.get("mine_train")


def test_a_split_of_images_alone(describe, tmp_path):
    write_pairs(tmp_path / "more", 2)
    path = describe(splits={"unlabelled": {"images": "more/images"}, "unlabelled2": {"images": "list.txt"}})
    (tmp_path / "list.txt").write_text("more/images/1.png\n")
    register_custom([path])
    assert [r["image_id"] for r in DatasetCatalog.get("mine_unlabelled")] == ["0", "1"]
    records = DatasetCatalog.get("mine_unlabelled2")
    assert [(r["height"], r["width"]) for r in records] == [(96, 128)]
    assert all("sem_seg_file_name" not in r for r in records)


def test_labels_beside_pictures_that_should_have_none_are_pointed_out(describe, tmp_path, caplog):
    write_pairs(tmp_path / "more", 2)
    register_custom([describe(splits={"unlabelled": {"images": "more/images"}})])
    DatasetCatalog.get("mine_unlabelled")
    assert "labels/0.png' looks like the label" in caplog.text


def test_an_unlabelled_split_that_names_labels_is_refused(describe):
    with pytest.raises(ValueError, match="splits.unlabelled names labels"):
        register_custom([describe(splits={"unlabelled": {"images": "images", "labels": "labels"}})])
