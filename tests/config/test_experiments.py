"""Every experiment of the papers' tables is a config, trained as its paper says."""

import functools
from pathlib import Path

import pytest

from fakd.config import find_experiment, load_config, read_experiments, read_paper

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def root(monkeypatch):
    monkeypatch.chdir(ROOT)


load_teacher = functools.cache(load_config)


def load(experiment):
    return load_config(experiment.config_file, experiment.opts, experiment.recipe)


@pytest.mark.parametrize("project", ["FAKD", "CIRKD"])
def test_every_experiment_resolves(project):
    for name, experiment in read_experiments(project).items():
        assert name.rpartition("/")[2].partition("-")[0] == experiment.recipe
        cfg = load(experiment)
        alone = experiment.recipe == "student"
        assert cfg.MODEL.META_ARCHITECTURE == ("Segmentor" if alone else "Distiller")
        assert bool(cfg.KD.LOSSES) is not alone
        transformer = "/segformer_" in name
        assert (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER) == (
            (8, 160000) if transformer else (16, 40000)
        )
        assert cfg.SOLVER.OPTIMIZER == ("AdamW" if transformer else "SGD")
        assert cfg.OUTPUT_DIR == f"output/{project}/{name}"
        assert (cfg.MODEL.BACKBONE.PRETRAINED == "none") is ("_random/" in name)
        teacher = load_teacher(cfg.KD.TEACHER.CONFIG_FILE)
        assert teacher.DATASETS.TRAIN == cfg.DATASETS.TRAIN
        assert teacher.MODEL.SEM_SEG_HEAD.NUM_CLASSES == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        assert teacher.MODEL.BACKBONE.TIMM_NAME != cfg.MODEL.BACKBONE.TIMM_NAME


def test_a_lambda_of_table_5_reaches_the_loss():
    assert load(find_experiment("FAKD/ade20k/pspnet_r18/fakd_paper-lambda=2.5")).KD.FAKDChannel.LAMBDA == 2.5


@pytest.mark.parametrize(
    ("config_file", "expected"),
    [
        ("ade20k/pspnet_r18", ((512, 512), 16, 0.01, 5e-4, 0.0, (2048, 512), (0, 0), True, "all", "RGB")),
        (
            "pascal_context_59/hrnet_w18s",
            ((512, 512), 16, 0.004, 1e-4, 0.0, (520, 520), (480, 480), True, "all", "RGB"),
        ),
        (
            "cityscapes/isanet_r18",
            ((512, 512), 16, 0.01, 5e-4, 0.0, (2048, 1024), (0, 0), True, "all", "RGB"),
        ),
        (
            "cityscapes/cirkd_segformer_b0",
            ((1024, 1024), 8, 2e-4, 1e-4, 0.0, (0, 0), (1024, 1024), False, "valid", "BGR"),
        ),
        ("camvid/cirkd_pspnet_r18", ((360, 360), 16, 0.02, 1e-4, 0.0, (0, 0), (0, 0), False, "valid", "BGR")),
        (
            "cityscapes/cirkd_pspnet_r18",
            ((512, 1024), 16, 0.02, 1e-4, 0.0, (0, 0), (0, 0), False, "valid", "BGR"),
        ),
    ],
)
def test_a_protocol_says_how_to_train_and_test(config_file, expected):
    assert protocol_of(load_config(f"configs/{config_file}.yaml")) == expected


def protocol_of(cfg):
    head, solver = cfg.MODEL.SEM_SEG_HEAD, cfg.SOLVER
    return (
        tuple(cfg.INPUT.CROP.SIZE),
        solver.IMS_PER_BATCH,
        solver.BASE_LR,
        solver.WEIGHT_DECAY,
        solver.MIN_LR,
        tuple(cfg.INPUT.BASE_SIZE),
        tuple(cfg.TEST.WINDOW),
        cfg.INPUT.PHOTOMETRIC,
        head.LOSS_MEAN,
        cfg.INPUT.FORMAT,
    )


def test_the_command_line_chooses_the_protocol_and_wins_over_it():
    config_file = "configs/cityscapes/pspnet_r18.yaml"
    cfg = load_config(config_file, ["PROTOCOL", "mmseg", "SOLVER.BASE_LR", 0.5])
    assert protocol_of(cfg)[:5] == ((512, 1024), 8, 0.5, 5e-4, 1e-4)


def test_segformers_own_protocol():
    opts = ["PROTOCOL", "segformer", "DATASETS.TRAIN", "('cityscapes_train',)"]
    cfg = load_config("configs/_base_/models/segformer_b0.yaml", opts)
    assert protocol_of(cfg)[:4] == ((1024, 1024), 8, 6e-5, 0.01)
    assert (cfg.SOLVER.OPTIMIZER, cfg.SOLVER.HEAD_LR_FACTOR, cfg.SOLVER.WARMUP_ITERS) == ("AdamW", 10, 1500)


def test_unknown_names_are_refused_with_those_there_are():
    with pytest.raises(FileNotFoundError, match="no protocol 'papers'.*cirkd, mmseg, paper, segformer"):
        load_config("", ["PROTOCOL", "papers"])
    with pytest.raises(KeyError, match="FAKD has no experiment 'ade20k/pspnet_18/pd'.*ade20k/pspnet_r18/pd"):
        find_experiment("FAKD/ade20k/pspnet_18/pd")
    with pytest.raises(FileNotFoundError, match="projects with tables here: CIRKD, FAKD"):
        find_experiment("FAKT/x")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("FAKD/ade20k/isanet_r18/fakd", "FAKD/ade20k/isanet_r18/fakd_paper"),
        ("FAKD/ade20k/isanet_r18/cwd", "FAKD/ade20k/isanet_r18/cwd_mmseg"),
        ("FAKD/voc2012_aug/isanet_r18/cirkd", "FAKD/voc2012_aug/isanet_r18/cirkd_voc"),
        ("FAKD/table4/fakd_cwd", "FAKD/ade20k/pspnet_r18/fakd_paper"),
        ("FAKD/table5/lambda_1.5", "FAKD/ade20k/pspnet_r18/fakd_paper-lambda=1.5"),
        ("CIRKD/camvid/pspnet_r18/skd", "CIRKD/camvid/pspnet_r18/skds_cirkd"),
        ("CIRKD/ade20k/deeplabv3_r18/kd", "CIRKD/ade20k/deeplabv3_r18/pd"),
    ],
)
def test_a_name_of_before_says_the_one_of_now(old, new):
    with pytest.raises(KeyError, match=f"{old} is named {new} now"):
        find_experiment(old)
    assert find_experiment(new).name == new


@pytest.mark.parametrize("project", ["FAKD", "CIRKD"])
def test_a_value_that_a_paper_prints_twice_is_the_same_twice(project):
    paper = read_paper(project)
    for rows in paper.tables.values():
        for pair, row in rows.items():
            values = paper.values(pair)
            for method, printed in row.items():
                numbers = printed if isinstance(printed, list) else [printed]
                assert list(values[method].values()) == [n for n in numbers if not isinstance(n, str)]


def test_the_values_of_a_pair_are_those_of_all_tables_by_run():
    values = read_paper("FAKD").values("ade20k/pspnet_r18")
    assert values["fakd_paper"] == {"mIoU": 35.30, "mAcc": 44.06}
    assert values["fakd_paper-lambda=2.5"] == {"mIoU": 31.95, "mAcc": 39.04}
    assert values["fakd_pd_paper"]["mIoU"] == 32.84 and values["teacher"]["mIoU"] == 44.39
    assert read_paper("FAKD").values("ade20k/nothing") == {}
    assert read_paper("CIRKD").values("camvid/pspnet_r18")["skds_cirkd"] == {"best mIoU": 67.83}
