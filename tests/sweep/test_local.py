"""Sweeps in this process: the same plan, folders and results as any other way to run them."""

import errno
import json
import os

import pytest
import timm
import torch
from integration.conftest import assert_same_weights, weights

from fakd.files import read_lines
from fakd.report.report import write_report
from fakd.sweep import executor
from fakd.sweep.events import FOLDER
from fakd.sweep.local import run_locally
from fakd.sweep.plan import make_plan
from fakd.sweep.spec import parse_spec
from fakd.sweep.worker import run_trials

from .conftest import content

RATE = "SOLVER.BASE_LR"


def files(output, name="model_final.pth"):
    return {str(path.parent.relative_to(output)): path for path in sorted(output.glob(f"**/{name}"))}


def assert_same(first, second):
    assert files(first).keys() == files(second).keys() != set()
    for run, path in files(first).items():
        assert_same_weights(weights(path), weights(files(second)[run]))


def test_it_ends_like_its_runs_one_by_one(tmp_path, capsys):
    spec = parse_spec(content(methods=["cwd", "student", "pd"], pack=2))
    assert run_locally(spec, tmp_path / "sweep") == 0
    plan = make_plan(spec, tmp_path / "by_hand")
    for trial in plan.known:
        run_trials([trial], tmp_path / "by_hand")
    assert_same(tmp_path / "by_hand", tmp_path / "sweep")
    packed = files(tmp_path / "sweep", "result.json")["runs/cwd/seed0"]
    assert json.loads(packed.read_text())["packed"] == 2
    told = "".join(capsys.readouterr())
    assert "Checking the configs of 4 trials" in told and "cwd seed 0: done, mIoU" in told
    assert told.index("student seed 0: done") < told.index("cwd seed 0: done")  # it needs no teacher
    assert "The sweep is finished: 4 of 4 trials are done, 0 failed." in told
    with pytest.raises(ValueError, match="holds this sweep already"):
        run_locally(spec, tmp_path / "sweep", resume=False)


def test_methods_and_seeds_are_added_to_what_is_finished(tmp_path):
    run_locally(parse_spec(content(methods=["student"])), tmp_path)
    before = files(tmp_path, "result.json")["runs/student/seed0"].stat().st_mtime_ns
    more = parse_spec(content(methods=["student", "pd"], seeds=[0, 1]))
    assert run_locally(more, tmp_path, resume=True) == 0
    found = files(tmp_path, "result.json")
    runs = {f"runs/{method}/seed{seed}" for method in ("student", "pd") for seed in (0, 1)}
    assert {run for run in found if run.startswith("runs")} == runs
    assert found["runs/student/seed0"].stat().st_mtime_ns == before


def test_a_sweep_that_was_moved_goes_on_and_takes_a_seed_before_its_first(tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    assert run_locally(parse_spec(content(methods=["cwd"], seeds=[1])), before) == 0
    teacher = files(before, "result.json")["teachers/integration_tiny/trained"].stat().st_mtime_ns
    before.rename(after)
    (after / "runs" / "cwd" / "seed1" / "result.json").unlink()
    assert run_locally(parse_spec(content(methods=["cwd"], seeds=[0, 1])), after, resume=True) == 0
    found = files(after, "result.json")
    assert set(found) == {"teachers/integration_tiny/trained", "runs/cwd/seed0", "runs/cwd/seed1"}
    assert found["teachers/integration_tiny/trained"].stat().st_mtime_ns == teacher


def test_a_backbone_without_classes_teaches_a_pack(tmp_path):
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "backbone.pth")
    opts = {"KD.TEACHER.BACKBONE": "test_resnet", "KD.TEACHER.WEIGHTS": str(tmp_path / "backbone.pth")}
    methods = ["student", "normalized_feature", "channel_feature"]
    given = content(methods=methods, teacher={}, pack=2, opts=opts, stop={"iterations": 2})
    assert run_locally(parse_spec(given), tmp_path / "sweep") == 0
    found = {
        run: json.loads(path.read_text()) for run, path in files(tmp_path / "sweep", "result.json").items()
    }
    assert set(found) == {f"runs/{method}/seed0" for method in methods}
    assert found["runs/channel_feature/seed0"]["packed"] == 2
    page = write_report([tmp_path / "sweep"], tmp_path / "sweep", num_images=0, allow_plugins=True)
    assert "channel_feature" in page.with_suffix(".md").read_text()


def test_a_population_that_is_interrupted_ends_like_one_that_is_not(tmp_path, monkeypatch, capsys):
    keys = {RATE: {"loguniform": [1e-6, 1e-2]}, "KD.CWD.WEIGHT": [1.0, 3.0, 9.0]}
    opts = {"SOLVER.CHECKPOINT_PERIOD": 1, "TEST.EVAL_PERIOD": 2}
    changes = {"search": "random", "samples": 4, "scheduler": "pbt", "stop": {"iterations": 6}, "opts": opts}
    spec = parse_spec(content(methods=["cwd"], keys=keys, **changes))
    assert run_locally(spec, tmp_path / "whole") == 0
    schedules = {
        run: json.loads(p.read_text()) for run, p in files(tmp_path / "whole", "schedule.json").items()
    }
    assert [entry["iteration"] for entry in next(iter(schedules.values()))][:2] in ([0, 2], [0, 4])

    exploit = executor.exploit

    def interrupted(members, *arguments):
        exploit(members, *arguments)
        if members[0].reached == 2:
            monkeypatch.setattr(executor, "exploit", exploit)
            raise SystemExit(130)  # as Ctrl-C does

    monkeypatch.setattr(executor, "exploit", interrupted)
    assert run_locally(spec, tmp_path / "cut", resume=False) == 130
    assert "with --resume continues it" in capsys.readouterr().out
    assert run_locally(spec, tmp_path / "cut", resume=True) == 0
    assert_same(tmp_path / "whole", tmp_path / "cut")
    assert schedules == {
        run: json.loads(p.read_text()) for run, p in files(tmp_path / "cut", "schedule.json").items()
    }


def test_a_stopped_sweep_names_the_command_of_its_report(tool, tmp_path, monkeypatch):
    monkeypatch.setattr("fakd.sweep.local.run_locally", lambda *given: 130)
    (tmp_path / "sweep.yaml").write_text(json.dumps(content()))
    code, told = tool("tune", "--spec", tmp_path / "sweep.yaml", "--output", tmp_path / "out", "--local")
    assert code == 130 and f": fakd report {tmp_path / 'out'}\n" in told


def test_a_population_that_fails_as_a_whole_leaves_the_sweep_to_go_on(tmp_path, capsys):
    keys = {RATE: [1e30, 1e35]}  # after one step no loss is finite
    spec = parse_spec(content(methods=["student"], seeds=[0, 1], keys=keys, scheduler="pbt"))
    assert run_locally(spec, tmp_path) == 1
    assert "0 of 4 trials are done, 4 failed" in capsys.readouterr().out


@pytest.mark.parametrize("written", [0, 10])
def test_a_disk_without_room_for_a_line_fails_the_runs_not_the_sweep(tmp_path, monkeypatch, capsys, written):
    """Of the teacher all lines are written, of a student none, or a part of one."""
    write = os.write

    def full(descriptor, text):
        if b"student" in text and b'"start"' in text:
            if not written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(descriptor, text[:written])
        return write(descriptor, text)

    monkeypatch.setattr(os, "write", full)
    spec = parse_spec(content())
    assert run_locally(spec, tmp_path) == 1
    told = "".join(capsys.readouterr())
    assert "failed: student seed 0: " in told and "No space left" in told
    assert sorted(files(tmp_path)) == ["runs/cwd/seed0", "teachers/integration_tiny/trained"]
    monkeypatch.setattr(os, "write", write)
    assert run_locally(spec, tmp_path, resume=True) == 0
    assert [e["event"] for e in read_lines(tmp_path / FOLDER / "runs+student+seed0.jsonl")][-1] == "result"
