"""Weights must fit, every one."""

import pytest
import torch
from torch import nn

from fakd.checkpoint import load_teacher


def net(channels=4):
    return nn.Sequential(nn.Conv2d(3, channels, 1), nn.BatchNorm2d(channels))


@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"model": w, "iteration": 3}])
def test_weights_are_loaded_bare_or_under_model(tmp_path, wrap):
    source, target = net(), net()
    torch.save(wrap(source.state_dict()), tmp_path / "w.pth")
    load_teacher(target, str(tmp_path / "w.pth"))
    assert torch.equal(source[0].weight, target[0].weight)


def test_the_counter_of_batch_norm_may_be_absent(tmp_path):
    weights = net().state_dict()
    del weights["1.num_batches_tracked"]
    torch.save(weights, tmp_path / "w.pth")
    load_teacher(net(), str(tmp_path / "w.pth"))


def test_the_error_lists_what_does_not_fit_and_names_the_config(tmp_path):
    weights = net(5).state_dict()
    weights["head.weight"] = weights.pop("1.running_mean")
    torch.save(weights, tmp_path / "w.pth")
    target = net()
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(ValueError) as error:
        load_teacher(target, str(tmp_path / "w.pth"), "teacher.yaml")
    message = str(error.value)
    assert "w.pth" in message and "teacher.yaml" in message
    assert "1 missing in the file (1.running_mean)" in message
    assert "1 unknown to the model (head.weight)" in message
    assert "0.weight: (5, 3, 1, 1) in the file, (4, 3, 1, 1) in the model" in message
    assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="KD.TEACHER.WEIGHTS"):
        load_teacher(net(), str(tmp_path / "nothing.pth"))


def test_code_is_refused(tmp_path):
    torch.save(net(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="CHECKPOINT.ALLOW_PICKLE"):
        load_teacher(net(), str(tmp_path / "w.pth"))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_refused(tmp_path, value):
    weights = net().state_dict()
    weights["1.running_var"][2] = value
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w.pth' hold NaN or infinity \(1.running_var\)"):
        load_teacher(net(), str(tmp_path / "w.pth"))
