"""The form of a teacher: chosen by what it computes, kept with the run, the same for all who share it."""

import json
import logging

import pytest
import torch

from fakd.engine import run, teacher_form
from fakd.engine.check import check_config
from fakd.engine.teacher_form import FILE, candidates, quicken
from fakd.modeling import Distiller
from fakd.modeling.teacher import FrozenTeacher

from .conftest import assert_same_weights, tiny_config, weights

EXACT = ("fold", "channels_last")


def form_of(folder):
    return tuple(json.loads((folder / FILE).read_text())["form"])


def quickened(folder, teacher, *opts, resumed=False):
    cfg = tiny_config(folder, *teacher, "KD.TEACHER.FAST", "auto", *opts, recipe="cwd")
    model = Distiller(cfg)
    quicken(model, cfg, resumed)
    return model


@pytest.fixture
def with_bf16(monkeypatch):
    monkeypatch.setattr(teacher_form, "half_of_device", lambda device: "bf16")


def test_auto_takes_a_form_that_agrees_and_says_so(tmp_path, teacher, with_bf16, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "fakd")
    monkeypatch.setattr(teacher_form, "MOST_ERROR", 1e-3)  # above float32's rounding, below bfloat16's
    model = quickened(tmp_path, teacher)
    assert model.teacher.form == form_of(tmp_path) == EXACT
    assert "does not compute in the form fold, channels_last, bf16" in caplog.text
    assert "computes in the form fold, channels_last: the arg-max of 100.00 %" in caplog.text


def test_auto_takes_half_precision_where_it_is_near_enough(tmp_path, teacher, with_bf16, monkeypatch):
    monkeypatch.setattr(teacher_form, "LEAST_SAME", 0.0)
    monkeypatch.setattr(teacher_form, "MOST_ERROR", 1.0)
    assert quickened(tmp_path, teacher).teacher.form == (*EXACT, "bf16")


def test_auto_leaves_a_teacher_with_which_nothing_agrees_as_it_is(tmp_path, teacher, monkeypatch, caplog):
    monkeypatch.setattr(teacher_form, "MOST_ERROR", -1.0)
    model = quickened(tmp_path, teacher)
    assert model.teacher.form == form_of(tmp_path) == () and "no form agrees" in caplog.text


def test_a_form_that_is_asked_for_is_taken_with_a_warning_if_it_differs(
    tmp_path, teacher, with_bf16, monkeypatch, caplog
):
    monkeypatch.setattr(teacher_form, "MOST_ERROR", 1e-6)
    model = quickened(tmp_path, teacher, "KD.TEACHER.FAST", "('fold', 'bf16')")
    assert model.teacher.form == ("fold", "bf16")
    assert any(each.levelno == logging.WARNING for each in caplog.records)


def test_the_form_that_was_measured_is_taken_and_not_built_again(tmp_path, teacher, monkeypatch):
    built, take_form = [], FrozenTeacher.take_form

    def seen(self, form):
        take_form(self, form)
        built.append(self.network)

    monkeypatch.setattr(FrozenTeacher, "take_form", seen)
    model = quickened(tmp_path, teacher, "KD.TEACHER.FAST", "('fold',)")
    assert built == [model.teacher.network] and model.teacher.form == ("fold",)


def test_off_is_the_teacher_as_it_is(tmp_path, teacher):
    model = quickened(tmp_path, teacher, "KD.TEACHER.FAST", "off")
    assert model.teacher.form == () and model.teacher.network.auxiliary_head is not None


def test_a_resume_takes_the_form_of_its_start(tmp_path, teacher, monkeypatch):
    (tmp_path / FILE).write_text(json.dumps({"form": ["fold", "bf16"]}))
    assert quickened(tmp_path, teacher, resumed=True).teacher.form == ("fold", "bf16")
    (tmp_path / FILE).unlink()  # begun before there were forms
    assert quickened(tmp_path, teacher, resumed=True).teacher.form == ()


def test_half_precision_comes_from_mixed_precision_where_that_is_on(with_bf16):
    cpu = torch.device("cpu")
    assert candidates(cpu, ["auto"], mixed_precision=True) == [EXACT]
    assert candidates(cpu, ["auto"], mixed_precision=False) == [(*EXACT, "bf16"), EXACT]
    assert candidates(cpu, ["fold"], mixed_precision=False) == [("fold",)]


def test_half_precision_that_is_asked_for_needs_a_cpu_that_computes_it(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    asked = [*EXACT, "bf16"]
    assert candidates(torch.device("cpu"), asked, mixed_precision=False) == [EXACT]
    assert candidates(torch.device("meta"), asked, mixed_precision=False) == [tuple(asked)]


@pytest.mark.parametrize("form", [("auto", "fold"), ("off", "fold"), ("bf16", "fp16")])
def test_contradicting_words_are_refused(tmp_path, form):
    with pytest.raises(ValueError, match="KD.TEACHER.FAST is"):
        check_config(tiny_config(tmp_path, "KD.TEACHER.FAST", form))


@pytest.mark.parametrize("form", ["auto", "('fold', 'channels_last', 'bf16')"])
def test_a_resumed_run_ends_as_an_undisturbed_one(tmp_path, teacher, form):
    opts = [*teacher, "KD.TEACHER.FAST", form, "SOLVER.MAX_ITER", "8", "KD.TEACHER.SCALE", "0.5"]
    for name in ("stopped", "undisturbed"):
        run(tiny_config(tmp_path / name, *opts, recipe="fakd"))
    stopped = tmp_path / "stopped"
    assert form_of(stopped)[:2] == EXACT
    (stopped / "result.json").unlink()
    (stopped / "model_0000007.pth").unlink()
    run(tiny_config(stopped, *opts, recipe="fakd"), resume=True)
    assert_same_weights(
        *(weights(tmp_path / name / "model_final.pth") for name in ("stopped", "undisturbed"))
    )
