"""A study at the size of a test: all runs, the report, and going on after trouble."""

import functools
import json
import signal
from pathlib import Path

import pytest

from fakd.checkpoint import Checkpointer
from fakd.files import read_lines
from fakd.report.report import write_report

from .conftest import CONFIG

OPTS = ("SOLVER.MAX_ITER", "4", "SOLVER.CHECKPOINT_PERIOD", "2")


@pytest.fixture
def study(tool, monkeypatch):
    """``study(folder, flags..., whole_report=)``: the command in this process; its exit code and its output.

    Unless ``whole_report`` is true, its report has sections without pictures only.
    """
    short = functools.partial(write_report, sections=["Summary", "Every run", "Protocol"])

    def start(output, *flags, whole_report=False):
        common = ("--teacher-config", CONFIG, "--student-config", CONFIG, "--output", output)
        with monkeypatch.context() as patch:
            if not whole_report:
                patch.setattr("fakd.commands.study.write_report", short)
            return tool("study", *common, "--opts", *OPTS, *flags)

    return start


def results(output):
    return {
        str(p.parent.relative_to(output)): json.loads(p.read_text()) for p in output.glob("*/*/*/result.json")
    }


TEACHER = "teachers/integration_tiny/trained"


def test_a_study_trains_all_reports_and_is_not_done_twice(tmp_path, study):
    code, told = study(tmp_path, "--methods", "student", "cwd", "--seeds", 0, 1, whole_report=True)
    assert code == 0, told
    found = results(tmp_path)
    runs = {f"runs/{run}/seed{seed}" for run in ("student", "cwd") for seed in (0, 1)}
    assert set(found) == {TEACHER, *runs}
    assert {(r["method"], r["seed"]) for r in found.values()} >= {("teacher", 0), ("student", 1), ("cwd", 1)}
    report = (tmp_path / "report.html").read_text()
    assert "tools/study.py" in report
    assert f"Report: {tmp_path / 'report.html'}" in told
    assert "The sweep is finished: 5 of 5 trials are done, 0 failed." in told
    written = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*/*/*/model_*")}
    assert written and study(tmp_path, "--methods", "student", "cwd", "--seeds", 0, 1)[0] == 0
    assert written == {p: p.stat().st_mtime_ns for p in tmp_path.glob("*/*/*/model_*")}


def test_a_failed_run_is_noted_the_others_go_on_and_a_repeat_fixes_it(tmp_path, monkeypatch, study):
    recipe = tmp_path / "fails.yaml"
    recipe.write_text("MODEL: {META_ARCHITECTURE: Distiller}\nKD: {LOSSES: [FailsAt], FailsAt: {AT: 0.5}}\n")
    output = tmp_path / "study"
    flags = ("--methods", "student", recipe, "cwd")
    code, told = study(output, *flags)
    assert code == 1
    assert set(results(output)) == {TEACHER, "runs/student/seed0", "runs/cwd/seed0"}
    (failed,) = [e for e in read_lines(output / "lines" / "runs+fails+seed0.jsonl") if e["event"] == "failed"]
    assert "loss_FailsAt became NaN" in failed["error"] and "Traceback" in failed["traceback"]
    assert f"failed: fails seed 0: {failed['error']}" in told
    assert failed["error"] in (output / "report.md").read_text()
    # The cause goes away, the same study is repeated: the run is resumed from its checkpoint.
    monkeypatch.setattr("tiny_plugin.torch.nan", 1.0)
    assert study(output, *flags)[0] == 0
    assert "runs/fails/seed0" in results(output)


def test_without_a_teacher_its_students_are_not_tried_and_the_student_alone_is(tmp_path, study):
    flags = ("--methods", "student", "cwd", "--teacher-opts", "SOLVER.BASE_LR", "1e30")
    code, told = study(tmp_path / "out", *flags)
    assert code == 1
    assert set(results(tmp_path / "out")) == {"runs/student/seed0"}
    assert "failed: cwd seed 0: not tried, because its teacher failed: " in told


def test_given_weights_are_the_teacher(tmp_path, teacher, study):
    flags = ("--methods", "student", "cwd", "--teacher-weights", teacher[3])
    assert study(tmp_path, *flags)[0] == 0
    found = results(tmp_path)
    assert set(found) == {TEACHER, "runs/student/seed0", "runs/cwd/seed0"}
    recorded = json.loads(Path(teacher[3]).with_suffix(".json").read_text())["mIoU"]
    assert found[TEACHER]["metrics"]["mIoU"] == recorded > 0
    assert "| teacher" in (tmp_path / "report.md").read_text()
    written = (tmp_path / TEACHER / "result.json").stat().st_mtime_ns
    assert study(tmp_path, *flags)[0] == 0
    assert (tmp_path / TEACHER / "result.json").stat().st_mtime_ns == written


def test_mistakes_are_found_before_anything_runs(tmp_path, study):
    code, told = study(tmp_path / "a", "--methods", "student", "nonsense")
    assert code == 1 and "no recipe 'nonsense'" in told and not (tmp_path / "a").exists()
    assert study(tmp_path / "b", "--methods", "student")[0] == 0
    code, told = study(tmp_path / "b", "--methods", "student", "--student-opts", "SOLVER.BASE_LR", "0.5")
    assert code == 1 and "had another config: SOLVER.BASE_LR" in told


def test_a_study_can_grow(tmp_path, study):
    assert study(tmp_path, "--methods", "student")[0] == 0
    before = (tmp_path / "runs/student/seed0/result.json").stat().st_mtime_ns
    assert study(tmp_path, "--methods", "student", "cwd")[0] == 0
    assert set(results(tmp_path)) == {TEACHER, "runs/student/seed0", "runs/cwd/seed0"}
    assert (tmp_path / "runs/student/seed0/result.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_teacher_ends_ends_the_study(tmp_path, study, monkeypatch, number):
    """It comes while the teacher writes its last checkpoint: everything is saved, and nothing else begins."""
    save = Checkpointer.save_model

    def interrupted(self, name, **options):
        if name == "model_final":
            signal.raise_signal(number)
        save(self, name, **options)

    monkeypatch.setattr(Checkpointer, "save_model", interrupted)
    code, told = study(tmp_path / "out", "--methods", "cwd")
    assert code == 128 + number, told
    assert "interrupted" in told and not (tmp_path / "out" / "runs").exists()


@pytest.mark.parametrize("name", ["study", "quickstart"])
def test_help(tool, name):
    code, told = tool(name, "--help")
    assert code == 0 and "--output" in told
