"""A value that no run can use is refused by its key before anything is built, wherever it is given."""

import math

import pytest

from fakd.config import load_config
from fakd.config.checks import check_values, ranges
from fakd.config.defaults import KEYS
from fakd.engine.check import check_config, check_place
from fakd.losses import DistillLoss, option
from fakd.registry import DISTILL_LOSS_REGISTRY

BAD = {
    "SEED": [2**31, "often", 1.5, None],
    "INPUT.FORMAT": ["rgb", "", 3],
    "INPUT.CHANNELS": [0, -1, 3.5, 4],
    "INPUT.RANDOM_FLIP": ["vertical", True],
    "INPUT.SCALE_RANGE": [(2.0, 0.5), (0.0, 1.0), (-1.0, 1.0), (1.0,), (1.0, math.inf), 1.0, ("a", "b")],
    "INPUT.SCALE_STEP": [-0.1, math.nan],
    "INPUT.BASE_SIZE": [(512,), (512, 512, 3), (-1, 5), (512.5, 512), 512],
    "INPUT.CROP.SIZE": [(64, 64, 64), (64,), (0, 64), (64, -1), (64.0, 64), 64],
    "INPUT.CROP.MAX_SHARE": [0.0, 1.1, math.nan],
    "INPUT.PHOTOMETRIC": [1, "yes", None],
    "INPUT.STRONG": [("flip",), "flip", True],
    "DATASETS.TRAIN": [(1,), 5, None],
    "DATASETS.TEST": [([],), 5],
    "DATASETS.CUSTOM": [5, (1,), {"name": "x"}],
    "DATALOADER.NUM_WORKERS": [-1, 1.5, None],
    "MODEL.PIXEL_MEAN": [(1.0, 2.0), (math.nan, 0.0, 0.0), 1.0],
    "MODEL.PIXEL_STD": [(0.0, 1.0, 1.0), (-1.0, 1.0, 1.0), (1.0,)],
    "MODEL.BACKBONE.OUTPUT_STRIDE": [7, 0, -8, 8.0],
    "MODEL.BACKBONE.DILATION_STYLE": ["mmsegmentation"],
    "MODEL.BACKBONE.STEM": ["d", 7],
    "MODEL.BACKBONE.WIDTH": [0.0, -1.0, math.nan, math.inf],
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": [0, -3, 1.5],
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": [-1, 2**31],
    "MODEL.SEM_SEG_HEAD.CHANNELS": [0, -8],
    "MODEL.SEM_SEG_HEAD.DROPOUT": [1.5, 1.0, -0.1, math.nan],
    "MODEL.SEM_SEG_HEAD.DILATIONS": [(0,), (), 3, (1.5,)],
    "MODEL.SEM_SEG_HEAD.LOSS_MEAN": ["none"],
    "MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS": [(-1.0, 1.0), (math.nan,), 2.0],
    "MODEL.SEM_SEG_HEAD.HARDEST": [0.0, 1.5, math.nan],
    "MODEL.SEM_SEG_HEAD.JACCARD_WEIGHT": [-1.0, math.inf],
    "MODEL.AUXILIARY_HEAD.WEIGHT": [-0.4, math.nan],
    "SOLVER.OPTIMIZER": ["Adam", None],
    "SOLVER.IMS_PER_BATCH": [0, -16, 1.5],
    "SOLVER.ACCUMULATE": [0, -1],
    "SOLVER.REFERENCE_WORLD_SIZE": [-1],
    "SOLVER.BASE_LR": [0.0, -0.1, math.nan, math.inf, "fast", None],
    "SOLVER.HEAD_LR_FACTOR": [-1.0, math.inf],
    "SOLVER.MOMENTUM": [-0.1, 1.0, math.nan],
    "SOLVER.WEIGHT_DECAY": [-1e-4, math.nan],
    "SOLVER.WEIGHT_DECAY_NORM": [-1e-4, "none"],
    "SOLVER.EMA_DECAY": [-0.1, 1.0, math.nan],
    "SOLVER.POLY_POWER": [-0.9, math.nan],
    "SOLVER.MIN_LR": [-1e-4, math.nan],
    "SOLVER.MAX_ITER": [0, -1, 1.5, True],
    "SOLVER.WARMUP_ITERS": [-1, 0.5],
    "SOLVER.WARMUP_FACTOR": [-0.1, 1.1],
    "SOLVER.WARMUP_METHOD": ["cosine"],
    "SOLVER.LR_SCHEDULER_NAME": ["StepLR"],
    "SOLVER.STEPS": [(30, 20), (0,), (1.5,)],
    "SOLVER.GAMMA": [0.0, -1.0],
    "SOLVER.NUM_DECAYS": [0],
    "SOLVER.AMP.ENABLED": ["yes", 1],
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ["full_model"],
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": [0.0, -1.0, math.nan],
    "SOLVER.CLIP_GRADIENTS.NORM_TYPE": [0.0, -2.0],
    "SOLVER.CHECKPOINT_PERIOD": [-1, 1.5],
    "SOLVER.CHECKPOINT_KEEP": [-1, None],
    "TEST.EVAL_PERIOD": [-1, 1.5],
    "TEST.WINDOW": [(512,), (-1, -1), 512],
    "TEST.STRIDE": [(512,), (-1, -1)],
    "TEST.SCALES": [(), (0.0,), (-1.0,), (math.nan,), ("1",)],
    "TEST.SAVE": [("gif",), ("png", 3)],
    "KD.RECIPE": [5, None],
    "KD.LOSSES": [(5,), 5],
    "KD.TEACHER.CHECK_IMAGES": [-1],
    "KD.TEACHER.CHECK_RATIO": [-0.1, 1.1, math.nan],
    "KD.TEACHER.MIOU": [-1.0, 101.0],
    "KD.PD.TAU": [0.0, -1.0, math.nan, math.inf],
    "KD.PD.WEIGHT": [-1.0, math.nan, math.inf, "a lot"],
    "KD.CWD.TAU": [0.0, -4.0],
    "KD.CWD.SOURCE": ["maps"],
    "KD.FAKDChannel.LAMBDA": [-0.5, math.nan],
    "KD.FAKDChannel.FORM": ["tightest"],
    "KD.FAKDChannel.LAMBDA_SCHEDULE": ["exponential"],
    "KD.MGD.MASK_RATIO": [1.0, -0.1],
    "KD.SKDSHolistic.WIDTHS": [(0,), 64],
    "KD.SKDSHolistic.CRITIC_LR": [0.0],
    "KD.SKDSPair.SCALE": [0.0, 1.5],
    "KD.CIRKDBatch.TAU": [0.0, 1e-9],
    "KD.CIRKDMemory.PIXEL_QUEUE": [0, -1],
    "KD.CIRKDMemory.STORAGE": ["int8"],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD.items() for value in values])
def test_a_value_out_of_range_is_refused_by_its_key(key, value):
    with pytest.raises(ValueError) as error:
        load_config(opts=[key, value])
    message = str(error.value)
    assert key in message and repr(value)[1:-1] in message and "\n" not in message
    assert "must be" in message or "choose from" in message


def test_a_file_that_holds_one_is_named(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("SOLVER: {BASE_LR: .nan}")
    with pytest.raises(ValueError, match="mine.yaml: SOLVER.BASE_LR is nan, but must be a number above 0"):
        load_config(str(file))


def test_a_config_that_was_changed_by_hand_is_checked_too():
    cfg = load_config(opts=["MODEL.DEVICE", "cpu"])
    cfg.TEST.SCALES = (0.0,)
    for check in (check_values, check_place, check_config):
        with pytest.raises(ValueError, match="TEST.SCALES"):
            check(cfg)


def test_every_key_has_a_range_that_its_default_is_in():
    unranged = {"MODEL.BACKBONE.TIMM_OPTIONS", "TEST.EXPECTED_RESULTS"}  # lists of values of several kinds
    cfg = load_config()
    check_values(cfg)
    options = {f"KD.{name}.{key}" for name, _ in DISTILL_LOSS_REGISTRY for key in cfg.KD[name]}
    assert set(ranges()) == set(KEYS) - unranged | options
    assert set(BAD) <= set(ranges())


def test_a_loss_built_by_hand_checks_its_options():
    class Own(DistillLoss):
        class Config(DistillLoss.Config):
            pass

    with pytest.raises(ValueError, match="KD.Own.WEIGHT is -1"):
        Own(Own.Config(weight=-1.0), None, None)
    assert option(1.0, "", above=0).metadata["range"].above == 0


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.SEM_SEG_HEAD.IGNORE_VALUE", 11], "IGNORE_VALUE is 11, which is one of the 12 classes"),
        (["INPUT.BASE_SIZE", (0, 512)], r"INPUT.BASE_SIZE is \(0, 512\): both"),
        (["SOLVER.MIN_LR", 0.5], "SOLVER.MIN_LR is 0.5, which is above SOLVER.BASE_LR"),
        (["SOLVER.BASE_LR_END", 0.5, "SOLVER.POLY_POWER", 0.0], "SOLVER.BASE_LR_END is 0.5, which is above"),
        (["SOLVER.NESTEROV", True, "SOLVER.MOMENTUM", 0.0], "SOLVER.NESTEROV needs a SOLVER.MOMENTUM"),
        (["SOLVER.GAMMA", 0.5], "SOLVER.GAMMA is of a schedule that SOLVER.POLY_POWER 0.9 replaces"),
        (["SOLVER.STEPS", (5, 7)], "SOLVER.STEPS is of a schedule"),
        (["SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR"], "SOLVER.LR_SCHEDULER_NAME .*SOLVER.POLY_POWER 0.0"),
        (["SOLVER.REFERENCE_WORLD_SIZE", 3], "multiple of SOLVER.REFERENCE_WORLD_SIZE"),
        (["KD.LOSSES", ("CWD", "CWD")], "KD.LOSSES names a loss twice"),
        (["TEST.WINDOW", (8, 8)], "TEST.STRIDE"),
        (["TEST.WINDOW", (8, 8), "TEST.STRIDE", (9, 8)], "TEST.STRIDE"),
        (["MODEL.BACKBONE.TIMM_OPTIONS", ("depth",)], "TIMM_OPTIONS .* must hold name, value"),
        (["TEST.EXPECTED_RESULTS", [1]], "TEST.EXPECTED_RESULTS holds 1, but must hold"),
        (["TEST.EXPECTED_RESULTS", [["sem_seg", "mIoU", "40", 1]]], "must hold"),
        (["TEST.EXPECTED_RESULTS", [["bbox", "AP", 40, 1]]], "expects 'AP' of 'bbox', but what is tested"),
    ],
)
def test_values_that_contradict_each_other_are_refused_before_training(opts, message):
    with pytest.raises(ValueError, match=message):
        check_config(load_config(opts=["MODEL.DEVICE", "cpu", *opts]))


@pytest.mark.parametrize(
    "opts",
    [
        ["SOLVER.GAMMA", 0.5, "SOLVER.POLY_POWER", 0.0],
        ["TEST.EXPECTED_RESULTS", [["sem_seg", "mIoU", 40, 0.5]]],
        ["SOLVER.CHECKPOINT_KEEP", 0, "SOLVER.CHECKPOINT_PERIOD", 0, "TEST.EVAL_PERIOD", 0],
        ["SEED", -1, "SOLVER.WEIGHT_DECAY_NORM", 0, "MODEL.BACKBONE.WIDTH", 1],
        ["INPUT.SCALE_RANGE", (1, 1), "DATALOADER.NUM_WORKERS", 0],
    ],
)
def test_values_at_the_ends_of_their_ranges_are_fine(opts):
    check_config(load_config(opts=["MODEL.DEVICE", "cpu", *opts]))
