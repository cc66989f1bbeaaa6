"""Every cell of the papers' tables is a config, and every network of them one that builds."""

import functools
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from fakd.config import RECIPES, find_cell, load_config, read_cells

ROOT = Path(__file__).parents[2]
NETWORKS = sorted(p.stem for p in (ROOT / "configs" / "voc2012_aug").glob("*.yaml"))


@pytest.fixture(autouse=True)
def root(monkeypatch):
    monkeypatch.chdir(ROOT)


load_teacher = functools.cache(load_config)


def load(cell):
    if not (RECIPES / f"{cell.recipe}.yaml").is_file():
        pytest.skip(f"the recipe '{cell.recipe}' is not written yet")
    return load_config(cell.config_file, cell.opts, cell.recipe)


@pytest.mark.parametrize("project", ["FAKD", "CIRKD"])
@pytest.mark.parametrize(
    "method", ["student", "skds", "skd", "ifvd", "cirkd", "cwd", "dsd", "fakd", "kd", "more"]
)
def test_every_cell_resolves(project, method):
    for name, cell in read_cells(project).items():
        own = name.startswith("table") if method == "more" else name.endswith(f"/{method}")
        if not own or (method != "more" and name.startswith("table")):
            continue
        cfg = load(cell)
        alone = cell.recipe == "student"
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
    assert load(find_cell("FAKD/table5/lambda_2.5")).KD.FAKDChannel.LAMBDA == 2.5


@pytest.mark.parametrize("name", [*NETWORKS, "cirkd_deeplabv3_mbv2", "cirkd_segformer_b0"])
def test_every_network_builds(name):
    dataset = "voc2012_aug" if name in NETWORKS else "cityscapes"
    opts = ["MODEL.BACKBONE.PRETRAINED", "none", "MODEL.DEVICE", "meta"]
    cfg = load_config(f"configs/{dataset}/{name}.yaml", opts, "student")
    with torch.device("meta"):
        model = build_model(cfg)
    assert model.spec.num_classes == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES


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
    with pytest.raises(KeyError, match="FAKD has no cell 'ade20k/pspnet_18/fakd'.*ade20k/pspnet_r18/fakd"):
        find_cell("FAKD/ade20k/pspnet_18/fakd")
    with pytest.raises(FileNotFoundError, match="projects with tables here: CIRKD, FAKD"):
        find_cell("FAKT/x")
