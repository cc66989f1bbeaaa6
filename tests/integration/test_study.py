"""A study at the size of a test: all runs, the report, and going on after trouble."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fakd.sweep.local import StudySpec, run_study

from .conftest import CONFIG

TOOLS = Path(__file__).parents[2] / "tools"


def spec(output, methods=("student", "cwd"), seeds=(0, 1), **options):
    opts = ("SOLVER.MAX_ITER", "4", "SOLVER.CHECKPOINT_PERIOD", "2")
    return StudySpec(CONFIG, CONFIG, tuple(map(str, methods)), seeds, output, opts, **options)


def results(output):
    return {
        str(p.parent.relative_to(output)): json.loads(p.read_text()) for p in output.glob("*/*/result.json")
    }


def test_a_study_trains_all_reports_and_is_not_done_twice(tmp_path, capsys):
    assert run_study(spec(tmp_path), command="the command") == 0
    found = results(tmp_path)
    assert set(found) == {"teacher/seed0", "student/seed0", "student/seed1", "cwd/seed0", "cwd/seed1"}
    assert {(r["method"], r["seed"]) for r in found.values()} >= {("teacher", 0), ("student", 1), ("cwd", 1)}
    report = (tmp_path / "report.html").read_text()
    assert "the command" in report and (tmp_path / "panels.png").exists()
    assert f"Report: {tmp_path / 'report.html'}" in capsys.readouterr().out
    written = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*/*/model_*")}
    assert run_study(spec(tmp_path)) == 0
    assert written == {p: p.stat().st_mtime_ns for p in tmp_path.glob("*/*/model_*")}


def test_a_failed_run_is_noted_the_others_go_on_and_a_repeat_mends_it(tmp_path, monkeypatch, capsys):
    recipe = tmp_path / "fails.yaml"
    recipe.write_text("KD: {LOSSES: [FailsAt], FailsAt: {AT: 0.5}}\n")
    output = tmp_path / "study"
    study = spec(output, ["student", recipe, "cwd"], seeds=(0,))
    assert run_study(study) == 1
    assert set(results(output)) == {"teacher/seed0", "student/seed0", "cwd/seed0"}
    note = output / "fails" / "seed0" / "error.txt"
    assert "loss_FailsAt became NaN" in note.read_text() and "Traceback" in note.read_text()
    assert f"failed: fails seed 0: see {note}" in capsys.readouterr().err
    assert (output / "report.html").exists()
    # The cause goes away, the same study is repeated: the run is resumed from its checkpoint.
    monkeypatch.setattr("tiny_plugin.torch.nan", 1.0)
    assert run_study(study) == 0
    assert not note.exists() and "fails/seed0" in results(output)


def test_without_a_teacher_its_pupils_fail_and_the_student_does_not(tmp_path):
    (tmp_path / "teacher.yaml").write_text(f"_BASE_: {CONFIG}\nDATASETS: {{TRAIN: [camvid_nowhere]}}\n")
    study = StudySpec(
        str(tmp_path / "teacher.yaml"),
        CONFIG,
        ("student", "cwd"),
        (0,),
        tmp_path / "out",
        ("SOLVER.MAX_ITER", "2"),
    )
    assert run_study(study) == 1
    assert set(results(tmp_path / "out")) == {"student/seed0"}
    assert "camvid_nowhere" in (tmp_path / "out" / "teacher" / "seed0" / "error.txt").read_text()
    assert "teacher's own run failed" in (tmp_path / "out" / "cwd" / "seed0" / "error.txt").read_text()


def test_given_weights_are_the_teacher(tmp_path, teacher):
    study = spec(tmp_path, ["student", "cwd"], seeds=(0,), teacher_weights=teacher[3])
    assert run_study(study) == 0
    found = results(tmp_path)
    assert set(found) == {"teacher/seed0", "student/seed0", "cwd/seed0"}
    recorded = json.loads(Path(teacher[3]).with_suffix(".json").read_text())["mIoU"]
    assert found["teacher/seed0"]["metrics"]["mIoU"] == recorded > 0
    assert "| teacher" in (tmp_path / "report.md").read_text()
    written = (tmp_path / "teacher" / "seed0" / "result.json").stat().st_mtime_ns
    assert run_study(study) == 0
    assert (tmp_path / "teacher" / "seed0" / "result.json").stat().st_mtime_ns == written


def test_mistakes_are_found_before_anything_runs(tmp_path):
    with pytest.raises(FileNotFoundError, match="no recipe 'nonsense'"):
        run_study(spec(tmp_path / "a", ["student", "nonsense"]))
    assert not (tmp_path / "a").exists()
    run_study(spec(tmp_path / "b", ["student"], seeds=(0,)))
    with pytest.raises(ValueError, match="had another config: SOLVER.BASE_LR"):
        run_study(spec(tmp_path / "b", ["student"], seeds=(0,), student_opts=("SOLVER.BASE_LR", "0.5")))


@pytest.mark.parametrize("tool", ["study.py", "quickstart.py"])
def test_help(tool):
    done = subprocess.run(
        [sys.executable, TOOLS / tool, "--help"], capture_output=True, text=True, check=True
    )
    assert "--output" in done.stdout
