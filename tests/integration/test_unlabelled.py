"""Runs on pictures without labels, and with teachers without classes, at the size of a test."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file

from fakd.config import load_config
from fakd.engine.check import check_config

from .conftest import assert_same_weights, weights

MIXED = ["DATASETS.UNLABELLED", "('tiny_train',)", "DATASETS.LABEL_SHARE", 0.5, "KD.PSEUDO_CONFIDENCE", 0.05]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """Options that name a transformer of random weights as the teacher."""
    path = tmp_path_factory.mktemp("backbone") / "vit.safetensors"
    net = timm.create_model("vit_tiny_patch16_224")
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, str(path))
    return ["KD.TEACHER.BACKBONE", "vit_tiny_patch16_224", "KD.TEACHER.WEIGHTS", str(path)]


def test_a_resumed_run_on_both_kinds_ends_as_an_undisturbed_one(tiny, teacher, tmp_path):
    strong = ["INPUT.STRONG", "('colour','blur','cutout')"]
    options = [*MIXED, *strong, *teacher, "SOLVER.MAX_ITER", 6]
    tiny(tmp_path, *options, recipe="fakd")
    logged = [json.loads(x) for x in (tmp_path / "metrics.json").read_text().splitlines()]
    assert all(0 < line.get("pseudo_labels/share", 0.5) <= 1 for line in logged)
    assert any("pseudo_labels/share" in line for line in logged)
    final = weights(tmp_path / "model_final.pth")
    for name in ("result.json", "model_final.pth"):
        (tmp_path / name).unlink()
    newest = tmp_path / "model_0000005.pth"
    newest.write_bytes(newest.read_bytes()[:-100])  # so that the run goes on from its third step
    tiny(tmp_path, *options, recipe="fakd", resume=True)
    assert_same_weights(weights(tmp_path / "model_final.pth"), final)


def test_pre_training_on_features_without_a_label_then_fine_tuning(tiny, backbone, tmp_path):
    alone = ["DATASETS.TRAIN", "()", "DATASETS.UNLABELLED", "('tiny_train',)", "DATASETS.TEST", "()"]
    options = [*alone, "DATALOADER.UNLABELLED_SHARE", 1.0, *backbone, "SOLVER.MAX_ITER", 12]
    tiny(tmp_path / "first", *options, "SOLVER.BASE_LR", 0.05, recipe="normalized_feature")
    logged = [json.loads(x) for x in (tmp_path / "first" / "metrics.json").read_text().splitlines()]
    assert logged[-1]["loss_seg"] == 0 and logged[-1]["loss_NormalizedFeature"] > 0
    final = tmp_path / "first" / "model_final.pth"
    tiny(tmp_path / "second", "MODEL.WEIGHTS", final, "SOLVER.MAX_ITER", 1, "SOLVER.BASE_LR", 1e-6)
    one, two = weights(final), weights(tmp_path / "second" / "model_final.pth")
    key = "backbone.net.layer4.1.conv1.weight"
    torch.testing.assert_close(one[key], two[key], rtol=0, atol=1e-3)


def test_two_teachers_are_one_too_many(backbone, teacher):
    cfg = load_config("", [*backbone, *teacher[:2], "KD.LOSSES", "('AT',)"])
    with pytest.raises(ValueError, match="KD.TEACHER.BACKBONE is 'vit_tiny.* two teachers"):
        check_config(cfg)
