"""What a config may not say, told before anything is built."""

import pytest
import torch

from fakd.config import load_config
from fakd.engine.check import check_config, check_place


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
        (("KD.TEACHER.RUN", "output/teacher"), "KD.TEACHER.RUN names a teacher, but .*no method.*--recipe"),
        (("KD.TEACHER.BACKBONE", "test_vit"), "KD.TEACHER.BACKBONE names a teacher, but .*no method"),
        (("MODEL.DEVICE", "gpu"), "MODEL.DEVICE is 'gpu', which cannot be used here"),
    ],
)
def test_a_mistake_is_named_by_its_key(opts, error):
    with pytest.raises((ValueError, KeyError), match=error):
        check_config(config(*opts))


def test_a_teacher_that_is_left_out_by_the_recipe_is_no_mistake():
    opts = ["MODEL.DEVICE", "cpu", "KD.TEACHER.BACKBONE", "test_vit"]
    check_config(load_config(opts=opts, recipe="student"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_an_accelerator_that_is_not_there_is_named_with_the_way_out():
    with pytest.raises(ValueError, match="MODEL.DEVICE is 'cuda'.*MODEL.DEVICE cpu can"):
        check_place(config("MODEL.DEVICE", "cuda"))
