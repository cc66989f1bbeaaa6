"""What a config may not say, told before anything is built."""

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from fakd.config import load_config
from fakd.engine.check import check_config, check_place, check_test_sets
from fakd.engine.trainer import build_trainer
from fakd.predict import Predictor


def config(*opts):
    return load_config(opts=["MODEL.DEVICE", "cpu", *map(str, opts)])


def test_the_defaults_are_fine():
    check_config(config())


@pytest.mark.parametrize(
    ("opts", "error"),
    [
        (("SOLVER.MAX_ITER", 0), "SOLVER.MAX_ITER is 0, but must be a whole number of at least 1"),
        (("SOLVER.IMS_PER_BATCH", 0), "SOLVER.IMS_PER_BATCH is 0"),
        (("SOLVER.BASE_LR", 0.0), "SOLVER.BASE_LR is 0.0"),
        (("SOLVER.ACCUMULATE", 3), r"IMS_PER_BATCH \(16\).*\(1 x 3\)"),
        (("INPUT.CROP.SIZE", (0, 9)), r"INPUT.CROP.SIZE is \(0, 9\)"),
        (("OUTPUT_DIR", "''"), "OUTPUT_DIR is empty"),
        (("TEST.PRECISE_BN.ENABLED", True), "TEST.PRECISE_BN"),
        (("DATASETS.TRAIN", ()), "DATASETS.TRAIN is empty"),
        (("DATASETS.TRAIN", ("toyscene_train",)), "DATASETS.TRAIN.*'toyscene_train'. Near: toyscenes_train"),
        (("DATASETS.TEST", ("camvid",)), "DATASETS.TEST: there is no dataset 'camvid'.*DATASETS.CUSTOM"),
        (("DATASETS.TEST", ("toyscenes_val",) * 2), "DATASETS.TEST names toyscenes_val twice"),
        (("KD.TEACHER.RUN", "output/teacher"), "KD.TEACHER.RUN names a teacher, but .*no method.*--recipe"),
        (("KD.TEACHER.BACKBONE", "test_vit"), "KD.TEACHER.BACKBONE names a teacher, but .*no method"),
        (("MODEL.DEVICE", "gpu"), "MODEL.DEVICE is 'gpu', which cannot be used here"),
    ],
)
def test_a_mistake_is_named_by_its_key(opts, error):
    with pytest.raises((ValueError, KeyError), match=error):
        check_config(config(*opts))


@pytest.fixture
def small_set():
    """The name of a set of two classes with one picture; the record can be changed."""
    name, record = "checked", {"file_name": "a.png", "sem_seg_file_name": "b.png"}
    DatasetCatalog.register(name, lambda: [record])
    MetadataCatalog.get(name).set(stuff_classes=["a", "b"], ignore_label=255, evaluator_type="sem_seg")
    yield name, record
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_a_test_set_that_could_not_be_evaluated_is_refused_before_the_training(small_set):
    name, record = small_set
    cfg = config("DATASETS.TEST", (name,), "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 2)
    check_test_sets(cfg)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 3
    with pytest.raises(ValueError, match="'checked', which has 2 classes, but .*NUM_CLASSES is 3"):
        build_trainer(cfg, resume=False)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, cfg.DATASETS.CLASSES = 2, ("b", "a")
    with pytest.raises(
        ValueError, match="'checked' has the classes of DATASETS.TRAIN in another order: class 0"
    ):
        check_test_sets(cfg)
    cfg.DATASETS.CLASSES = ()
    del record["sem_seg_file_name"]
    with pytest.raises(ValueError, match="'checked' cannot be evaluated on: 1 of its 1 pictures"):
        build_trainer(cfg, resume=False)


def test_a_teacher_that_is_left_out_by_the_recipe_is_no_mistake():
    opts = ["MODEL.DEVICE", "cpu", "KD.TEACHER.BACKBONE", "test_vit"]
    check_config(load_config(opts=opts, recipe="student"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_an_accelerator_that_is_not_there_is_named_with_the_way_out():
    with pytest.raises(ValueError, match="MODEL.DEVICE is 'cuda'.*MODEL.DEVICE cpu can"):
        check_place(config("MODEL.DEVICE", "cuda"))


def test_a_predictor_names_a_device_that_is_not_there(tmp_path):
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ValueError, match="^device is 'bogus', which cannot be used here"):
        Predictor(tmp_path, device="bogus")
