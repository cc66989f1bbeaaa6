"""Every dataset from what its site ships to an evaluated network, with its own config."""

import json
import math
import os
from pathlib import Path

import pytest
import trees
from detectron2.data import MetadataCatalog

from fakd.config import load_config
from fakd.data.datasets.folders import datasets_root
from fakd.engine import run

ROOT = Path(__file__).parents[2]
TINY = {
    "MODEL.DEVICE": "cpu",
    "MODEL.BACKBONE.PRETRAINED": "none",
    "MODEL.BACKBONE.WIDTH": 0.0625,
    "MODEL.SEM_SEG_HEAD.CHANNELS": 8,
    "MODEL.AUXILIARY_HEAD.CHANNELS": 8,
    "INPUT.CROP.SIZE": (32, 48),
    "SOLVER.IMS_PER_BATCH": 4,
    "SOLVER.MAX_ITER": 2,
    "DATALOADER.NUM_WORKERS": 0,
}


@pytest.fixture
def train(tmp_path, monkeypatch):
    """``train(config file, KEY=value)``: two iterations and an evaluation; the metrics."""
    monkeypatch.chdir(ROOT)

    def start(config_file, **more):
        opts = [str(word) for pair in {**TINY, **more}.items() for word in pair]
        cfg = load_config(config_file, [*opts, "OUTPUT_DIR", str(tmp_path / "run")], "student")
        cfg.freeze()
        return run(cfg)

    return start


@pytest.mark.parametrize("name", trees.TREES)
def test_from_the_shipped_files_to_a_trained_network(name, train, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    tree = trees.TREES[name]
    tree.make(tmp_path)
    size = {} if name == "camvid" else {"INPUT.BASE_SIZE": trees.SIZE[::-1]}
    if name == "pascal_context_59":  # tests in windows
        size |= {"TEST.WINDOW": (32, 32), "TEST.STRIDE": (24, 24)}
    metrics = train(tree.config, **size)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    test_set = "camvid_test" if name == "camvid" else f"{name}_val"
    assert (result["train_dataset"], result["dataset"]) == (f"{name}_train", test_set)
    assert 0 <= metrics["mIoU"] <= 100
    classes = MetadataCatalog.get(test_set).stuff_classes
    assert [key[4:] for key in metrics if key.startswith("IoU-")] == classes
    seen = sum(not math.isnan(metrics[f"Acc-{label}"]) for label in classes)
    assert seen == (5 if name == "cityscapes" else 3)


@pytest.mark.skipif(not os.path.isdir(os.path.join(datasets_root(), "CamVid")), reason="CamVid is not here")
def test_photographs_described_as_one_s_own_data_train(train, monkeypatch):
    """The README's command, on smaller images."""
    monkeypatch.setenv("DETECTRON2_DATASETS", os.path.abspath(datasets_root()))
    metrics = train(
        "configs/camvid/student.yaml",
        **{
            "DATASETS.CUSTOM": "configs/camvid/custom.yaml",
            "DATASETS.TRAIN": ("street_train",),
            "DATASETS.TEST": ("street_val",),
            "INPUT.BASE_SIZE": (64, 48),
            "MODEL.BACKBONE.WIDTH": 0.125,
        },
    )
    assert 0 < metrics["mIoU"] < 100 and metrics["IoU-Road"] >= 0
