"""Finished runs read from folders and from lines, and what is said of those that cannot be read."""

import json

import pytest
from fake_runs import finished

from fakd.config import load_config
from fakd.engine import run_folder
from fakd.report.records import read_runs, write_lines
from fakd.report.table import read_tables


@pytest.fixture
def runs(tmp_path):
    """A teacher, and two runs with two seeds each."""
    folder = tmp_path / "runs"
    teacher = finished(folder, "student", 0, 60.0, "MODEL.BACKBONE.WIDTH", "0.5", name="big")
    for seed in (0, 1):
        finished(folder, "cwd", seed, 43.0 + seed, "KD.TEACHER.WEIGHTS", str(teacher / "model_final.pth"))
        finished(folder, "student", seed, 41.0 + seed)
    return folder


def same(run):
    """What must survive the way into a line and back."""
    metrics = {n: m.model_dump() for n, m in run.metrics_by_dataset.items()}
    curve = [(i, pytest.approx(miou, abs=1e-4), seconds) for i, miou, seconds in run.curve]
    keys = ("seed", "method", "pair", "digest", "teacher", "config", "confusion", "commit", "machine", "crop")
    return {key: getattr(run, key) for key in keys} | {"curve": curve, "metrics": metrics}


def test_a_run_is_the_same_from_its_folder_and_from_its_line(runs, tmp_path):
    file = tmp_path / "kept" / "a.jsonl"
    assert write_lines([runs], file) == (5, [])
    before, after = (read_runs([place])[0] for place in (runs, file))
    assert [same(run) for run in before] == [same(run) for run in after]
    text = file.read_text()
    assert str(tmp_path) not in text and text.count('"config":') == 3  # once per digest
    teacher = next(run for run in after if run.metrics_by_dataset["toyscenes_val"].mIoU == 60)
    assert {run.teacher for run in after} == {"", teacher.identity}


def test_only_what_is_missing_is_added(runs, tmp_path):
    file = tmp_path / "a.jsonl"
    write_lines([runs / "student"], file)
    before = file.read_text()
    assert write_lines([runs], file)[0] == 3 and file.read_text().startswith(before)
    assert write_lines([runs], file)[0] == 0
    finished(runs, "student", 2, 44.0)
    (runs / "student" / "seed3").mkdir()
    added, problems = write_lines([runs], file)
    assert added == 1 and len(problems) == 1
    assert problems[0].startswith("runs/student/seed3: not finished (nothing logged)")
    assert len(read_runs([file, runs])[0]) == 6 and read_runs([file, runs])[1] == problems


def test_a_run_whose_config_is_gone_is_named_and_not_kept(runs, tmp_path):
    (runs / "student" / "seed0" / "config.yaml").unlink()
    added, problems = write_lines([runs / "student" / "seed0"], tmp_path / "a.jsonl")
    assert added == 0 and "seed0: its folder holds no config any more" in problems[0]


BROKEN = {
    b'{"torn': "no JSON",
    b"\xff": "no JSON",
    b"[" * 100_000: "no JSON",
    b"5": "the content is 5, but must be keys with values",
    b'{"config": {}}': "dataset is missing",
    b'{"dataset": "a", "metrics_by_dataset": {}, "config": {"A": 1}}': "config: no MODEL in it",
}


def test_a_damaged_file_of_lines_loses_nothing_when_lines_are_added(runs, tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"\n".join(BROKEN))
    added, problems = write_lines([runs], file)
    assert added == 5 and file.read_bytes().startswith(b"\n".join(BROKEN) + b"\n")
    for number, (problem, told) in enumerate(zip(problems, BROKEN.values(), strict=True), 1):
        assert problem.startswith(f"{file}, line {number}: {told}")
    assert len(read_runs([file])[0]) == 5


def test_runs_whose_config_was_lost_with_another_line_are_added_once(runs, tmp_path):
    file = tmp_path / "a.jsonl"
    write_lines([runs / "student"], file)
    first, second = file.read_text().splitlines()
    for broken in (first[:50], json.dumps(json.loads(first) | {"seed": "0"})):
        file.write_text(f"{broken}\n{second}\n")
        assert [write_lines([runs / "student"], file)[0] for _ in range(2)] == [2, 0]
        assert [run.seed for run in read_runs([file])[0]] == [0, 1]


def test_a_run_stays_the_same_when_a_key_is_added_to_the_config(runs, tmp_path, monkeypatch):
    write_lines([runs], tmp_path / "a.jsonl")
    known = run_folder._defaults
    monkeypatch.setattr(run_folder, "_defaults", lambda losses: known(losses) | {"SOLVER.NEW": 3})
    assert write_lines([runs], tmp_path / "a.jsonl") == (0, [])


def test_kept_runs_are_named_by_what_they_trained_and_not_by_what_else_they_tested(tmp_path):
    longer = (
        "SOLVER.MAX_ITER",
        "900",
        "DATASETS.TEST",
        "('toyscenes_val','camvid_val')",
        "PLUGINS",
        "('json',)",
    )
    files = []
    for name, opts in (("first", ()), ("second", longer)):
        for seed in range(2):
            finished(tmp_path / name, "student", seed, 40.0, *opts)
        files.append(tmp_path / f"{name}.jsonl")
        write_lines([tmp_path / name], files[-1])
    (table,), problems = read_tables(files)
    default = load_config().SOLVER.MAX_ITER
    assert table.names == [f"student (MAX_ITER {default})", "student (MAX_ITER 900)"] and not problems
    assert [len(table.of(name)) for name in table.names] == [2, 2]
