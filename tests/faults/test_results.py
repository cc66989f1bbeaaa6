"""Damaged files of finished runs and sweeps: each is one line with its name, and the other runs are read."""

import json

import pytest
from report.fake_runs import finished

from fakd.report.records import read_runs, write_lines


@pytest.fixture
def runs(tmp_path):
    """Two runs with two seeds each."""
    for seed in (0, 1):
        finished(tmp_path / "runs", "cwd", seed, 43.0 + seed)
        finished(tmp_path / "runs", "student", seed, 41.0 + seed)
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("result.json", '{"method": "c', "result.json: cannot be read as JSON"),
        ("result.json", "[1]", "result.json: the content is [1], but must be"),
        ("result.json", '{"dataset": 3, "metrics": {}}', "result.json: dataset is 3, but must be a text"),
        ("config.yaml", "a: [", "config.yaml: cannot be read as yaml"),
        ("config.yaml", "[" * 200_000, "config.yaml: cannot be read as yaml: it is nested too deeply"),
        ("config.yaml", "[]", "config.yaml: no config of a run"),
        ("confusion.json", '{"toyscenes_val": [[1], [2, 3]]}', "the matrix of toyscenes_val is not square"),
        ("confusion.json", '{"toyscenes_val": [[1.5]]}', "by_set.toyscenes_val[0][0] is 1.5, but must be"),
        ("metrics.json", "[1]\n", "its curve is left out, because metrics.json cannot be read"),
    ],
)
def test_a_broken_file_is_one_line_with_its_name(runs, name, content, told):
    (runs / "cwd" / "seed1" / name).write_text(content)
    found, problems = read_runs([runs])
    assert len(found) == (4 if "left out" in problems[0] else 3)
    assert len(problems) == 1 and "\n" not in problems[0]
    assert "runs/cwd/seed1: " in problems[0] and told in problems[0]


def test_broken_lines_are_named_by_their_number(runs, tmp_path):
    file = tmp_path / "a.jsonl"
    write_lines([runs / "student", runs / "cwd"], file)
    lines = file.read_text().splitlines()
    lines[0] = lines[0][:50]
    wrong = json.loads(lines[2])
    wrong["metrics_by_dataset"]["toyscenes_val"]["mIoU"] = "high"
    lines[2] = json.dumps(wrong)
    file.write_text("\n".join(lines))
    found, problems = read_runs([file])
    assert len(found) == 0 and len(problems) == 4
    assert "a.jsonl, line 1: no JSON" in problems[0] and "no line before it has the config" in problems[1]
    assert "metrics_by_dataset.toyscenes_val.mIoU is 'high', but must be a number" in problems[2]
