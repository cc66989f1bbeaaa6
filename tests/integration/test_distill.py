"""``fakd.distill`` gives what the command gives, from names, configs and networks alike."""

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

import fakd
from fakd.checkpoint import load_teacher

from .conftest import CONFIG, assert_same_weights, tiny_config, weights

SHORT = ("SOLVER.MAX_ITER", 2)


@pytest.fixture(scope="module")
def by_name(teacher, tmp_path_factory):
    """The folder of a run made from names alone."""
    folder = Path(teacher[3]).parent
    return fakd.distill(CONFIG, folder, method="cwd", output=tmp_path_factory.mktemp("names"), opts=SHORT)


def network(folder, path=None):
    model = build_model(tiny_config(folder, recipe="student"))
    if path is not None:
        load_teacher(model, str(path))
    return model


def test_names_train_what_the_command_trains(by_name, teacher, tiny, tmp_path):
    tiny(tmp_path, *SHORT, "KD.TEACHER.RUN", Path(teacher[3]).parent, recipe="cwd")
    assert_same_weights(weights(by_name / "model_final.pth"), weights(tmp_path / "model_final.pth"))
    assert fakd.Predictor(by_name, allow_plugins=True, device="cpu").classes


@pytest.mark.parametrize("kind", ["network", "config"])
def test_a_config_and_a_loaded_teacher_give_the_same_student(by_name, teacher, tmp_path, kind):
    loaded = network(tmp_path, teacher[3])
    if kind == "config":
        loaded = tiny_config(tmp_path, "MODEL.WEIGHTS", teacher[3])
    student = tiny_config(tmp_path, "KD.CWD.TAU", 3.0, recipe="pd")  # its method is not the one asked for
    opts = (*SHORT, "KD.CWD.TAU", 4.0)
    found = fakd.distill(student, loaded, method="cwd", output=tmp_path / "run", opts=opts)
    assert_same_weights(weights(found / "model_final.pth"), weights(by_name / "model_final.pth"))


def test_a_network_is_trained_in_place_and_a_resume_needs_it_again(teacher, tmp_path):
    student = network(tmp_path)
    before = student.decode_head.conv_seg.weight.detach().clone()
    opts = ("PLUGINS", "tiny_plugin", *SHORT, "SOLVER.IMS_PER_BATCH", 4, "INPUT.CROP.SIZE", (48, 64))
    opts += ("MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", 0)
    given = {"data": ("tiny_train", "tiny_val"), "method": "pd", "output": tmp_path / "run", "opts": opts}
    folder = fakd.distill(student, network(tmp_path, teacher[3]), **given)
    assert not torch.equal(before, student.decode_head.conv_seg.weight)
    saved = weights(folder / "model_final.pth")
    assert_same_weights(saved, student.state_dict())
    (folder / "result.json").unlink()
    again = network(tmp_path)
    fakd.distill(again, network(tmp_path, teacher[3]), **given, resume=True)
    assert_same_weights(saved, again.state_dict())


def test_what_cannot_be_distilled_is_refused(teacher, tmp_path):
    with pytest.raises(ValueError, match="has no teacher"):
        fakd.distill(CONFIG, Path(teacher[3]).parent, method="student", output=tmp_path)
    with pytest.raises(FileNotFoundError, match="DATASETS.CUSTOM: there is no file '.*absent.yaml'"):
        fakd.distill(CONFIG, Path(teacher[3]).parent, tmp_path / "absent.yaml", output=tmp_path)
    with pytest.raises(ValueError, match="KD.TEACHER.CACHE holds the maps of the teacher that wrote it"):
        fakd.distill(CONFIG, network(tmp_path), output=tmp_path, opts=["KD.TEACHER.CACHE", str(tmp_path)])
    with pytest.raises(ValueError, match="already holds a finished run"):
        fakd.distill(CONFIG, Path(teacher[3]).parent, method="pd", output=Path(teacher[3]).parent)
