"""The papers' tables in the READMEs of their projects, and what fills them."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from fakd.config import read_experiments
from fakd.report.paper_tables import BEGIN, END, collect_results, tables, write_tables

ROOT = Path(__file__).parents[2]
PROJECTS = ["CIRKD", "FAKD"]
PAIR = "cityscapes/pspnet_r18"


@pytest.mark.parametrize("project", PROJECTS)
def test_the_readme_is_what_the_tool_writes(project, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "projects" / project / "README.md").read_text()
    written = text.partition(BEGIN)[2].partition(END)[0].strip()
    assert written == tables(project).strip(), f"call tools/paper_tables.py {project}"


@pytest.mark.parametrize("project", PROJECTS)
def test_the_paper_s_values_are_of_the_experiments_there_are(project, monkeypatch):
    monkeypatch.chdir(ROOT)
    paper = yaml.safe_load((ROOT / "projects" / project / "paper.yaml").read_text())
    rows = [(name, row) for table in paper["tables"].values() for name, row in table.items()]
    named = {f"{name}/{method}" for name, row in rows for method in row if method != "teacher"}
    experiments = set(read_experiments(project))
    assert named <= experiments
    if project == "FAKD":  # CIRKD printed fewer methods on two datasets than run here
        assert experiments - named == {"ade20k/pspnet_r18/fakd_pd"}  # this project's form of Eq. 8
        assert len(rows) == 16 + 2


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A copy of the projects, without results, and of the configs."""
    for folder in ("projects", "configs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "projects/FAKD/results.json").unlink(missing_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def finish(folder, seed, miou, iterations=40000):
    folder.mkdir(parents=True)
    result = {
        "iterations": iterations,
        "batch_size": 16,
        "crop": [512, 512],
        "dataset": "cityscapes_val",
        "seed": seed,
        "metrics": {"mIoU": miou, "mAcc": miou + 5, "aAcc": 90.0},
        "best": None,
        "commit": "abc",
        "machine": "a machine",
        "finished": "2026-01-01",
    }
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "config.yaml").write_text("MODEL: {}\n")


def test_finished_experiments_fill_their_places_and_others_are_left_out(here):
    finish(here / f"output/FAKD/{PAIR}/cwd_mmseg", 0, 74.0)
    finish(here / f"output/FAKD/{PAIR}/fakd_paper/seed1", 1, 75.0)
    finish(here / f"output/FAKD/{PAIR}/fakd_paper/seed2", 2, 75.5)
    finish(here / f"output/FAKD/{PAIR}/student", 0, 40.0, iterations=100)
    (left_out,) = collect_results("FAKD")
    assert f"{PAIR}/student" in left_out and "iterations 100" in left_out
    ours = "| | ours | | | | | | 74.00 / 79.00 | 75.25 / 80.25 (2 seeds) |"
    write_tables("FAKD")
    lines = (here / "projects/FAKD/README.md").read_text().splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith(f"| `{PAIR}` | paper | 79.74 / 86.56"))
    assert lines[place + 1] == ours
    # What was collected stays when the runs are gone; a repeated seed takes the place of its old value.
    shutil.rmtree(here / "output")
    finish(here / f"output/FAKD/{PAIR}/fakd_paper", 1, 76.0)
    assert collect_results("FAKD") == []
    runs = json.loads((here / "projects/FAKD/results.json").read_text())[f"{PAIR}/fakd_paper"]
    assert [(run["seed"], run["mIoU"]) for run in runs] == [(1, 76.0), (2, 75.5)]


def test_a_readme_without_the_marks_is_named(here):
    readme = here / "projects/FAKD/README.md"
    readme.write_text(readme.read_text().replace(END, ""))
    with pytest.raises(ValueError, match=r"projects/FAKD/README\.md' needs the line"):
        write_tables("FAKD")
