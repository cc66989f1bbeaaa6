"""Finished runs side by side: how they are grouped and refused, and the numbers behind the pictures."""

import re

import numpy as np
import pandas as pd
import pytest
from fake_study import finished

from fakd.report import class_plots, log_plots, plots
from fakd.report.compare import write_comparison
from fakd.report.run_groups import read_groups


@pytest.fixture
def runs(tmp_path):
    """A teacher, and three runs with two seeds each."""
    teacher = finished(tmp_path, "student", 0, 60.0, "MODEL.BACKBONE.WIDTH", "0.5", name="big")
    weights = ["KD.TEACHER.WEIGHTS", str(teacher / "model_final.pth")]
    for seed in (0, 1):
        finished(tmp_path, "cwd", seed, 43.0 + seed, *weights)
        finished(tmp_path, "fakd", seed, 44.0 + seed, *weights)
        finished(tmp_path, "student", seed, 41.0 + seed)
    return tmp_path


def test_seeds_are_taken_together_and_the_teacher_and_the_baseline_found(runs):
    found = read_groups([runs])
    assert {name: [r.seed for r in group] for name, group in found.groups.items()} == {
        "teacher": [0],
        "student": [0, 1],
        "cwd": [0, 1],
        "fakd": [0, 1],
    }
    assert found.study.baseline == "student" and found.study.problems == []
    assert found.study.by_seed("fakd", "toyscenes_val").tolist() == [44.0, 45.0]
    assert {name: run.seed for name, run in found.firsts().items()} == dict.fromkeys(found.groups, 0)
    other = read_groups([runs / "student", runs / "fakd"], baseline=runs / "cwd" / "seed1")
    assert other.study.baseline == "cwd" and other.study.methods == ["fakd", "student"]
    assert list(other.groups) == ["cwd", "fakd", "student"] and len(other.groups["cwd"]) == 1


def test_runs_of_one_method_are_told_apart_by_what_differs(runs):
    weights = str(runs / "big" / "seed0" / "model_final.pth")
    finished(
        runs, "fakd", 0, 44.5, "KD.TEACHER.WEIGHTS", weights, "KD.FAKDChannel.LAMBDA", "0.5", name="half"
    )
    twin = finished(runs, "student", 1, 41.7, name="again")
    found = read_groups([runs / n for n in ("student", "fakd", "half", "again")])
    assert found.study.methods == ["fakd (LAMBDA 0.5)", "fakd (LAMBDA 1.0)"]
    assert [len(found.groups[name]) for name in found.study.methods] == [1, 2]
    assert f"{twin}: has the config and the seed of {runs / 'student' / 'seed1'}" in found.study.problems[0]


def test_what_cannot_be_compared_is_named_with_its_remedy(runs, tmp_path):
    with pytest.raises(FileNotFoundError, match="No folder .*absent': give folders that training left"):
        read_groups([runs / "absent"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty' holds no run: there is no config.yaml"):
        read_groups([tmp_path / "empty"])
    finished(runs, "pd", 0, 40.0, name="elsewhere", datasets=("camvid_val",))
    with pytest.raises(ValueError, match="elsewhere/seed0' was tested on camvid_val with 5 .*Leave one out"):
        read_groups([runs / "student", runs / "elsewhere"])
    (runs / "fakd" / "seed1" / "result.json").unlink()
    (runs / "cwd" / "seed0" / "result.json").write_text('{"method": "c')
    told = read_groups([runs / n for n in ("student", "fakd", "cwd")]).study.problems
    assert re.search(r"fakd/seed1: not finished \(last logged iteration 600\).*--resume", told[0])
    assert "cwd/seed0: cannot be read (JSONDecodeError" in told[1] and len(told) == 2
    with pytest.raises(FileNotFoundError, match="No finished run among them.*fakd/seed1: not finished"):
        read_groups([runs / "fakd" / "seed1"])
    with pytest.raises(ValueError, match="The baseline .*fakd/seed1' is not finished"):
        read_groups([runs / "student"], baseline=runs / "fakd" / "seed1")


def test_hard_and_easy_halves_by_hand(runs):
    study = read_groups([runs]).study
    table = pd.DataFrame(
        {"student": [80.0, 10, 50, 30, np.nan], "cwd": [81.0, 14, 49, 32, np.nan]}, list("abcde")
    )
    ordered = class_plots.by_difficulty(study, table)
    assert list(ordered.index) == ["b", "d", "c", "a"]
    assert class_plots.halves(ordered).loc["cwd"].tolist() == [3.0, 0.0]
    shares = pd.Series([40.0, 1, 30, 29, 0], table.index)
    assert class_plots.rank_correlations(study, table, shares)["cwd"] == pytest.approx(-0.8)


def test_confusions_that_changed_most_by_hand(runs):
    study = read_groups([runs]).study
    before = class_plots.confusion_rates(np.array([[8, 2, 0], [0, 10, 0], [0, 0, 0]]))
    after = class_plots.confusion_rates(np.array([[90, 0, 10], [3, 7, 0], [0, 0, 0]]))
    table = class_plots.changed_confusions({"student": before, "fakd": after}, study, ["a", "b", "c"], 9)
    assert table.values.tolist() == [["b", "a", 0.0, 30.0], ["a", "b", 20.0, -20.0], ["a", "c", 0.0, 10.0]]


def test_the_page_holds_every_picture_and_says_what_is_left_out(runs, tmp_path):
    (runs / "cwd" / "seed1" / "confusion.json").unlink()
    page = write_comparison([runs], tmp_path / "out", num_images=0, command="the command <&>")
    text, content = (tmp_path / "out" / "compare.md").read_text(), page.read_text()
    names = [
        "overview",
        "iou_per_class",
        "difficulty",
        "long_tail",
        "confusions",
        "curves",
        "logged",
        "covariance",
    ]
    assert re.findall(r"\]\(pictures/(\w+)\.png\)", text) == names
    assert content.count("data:image/png;base64,") == len(names)
    assert not re.search(r'(src|href)="(?!data:)', content)  # nothing to load from elsewhere
    assert "the command &lt;&amp;&gt;" in content
    squeezed = re.sub(" +", " ", text)
    assert (
        "| class | % of pixels | teacher | student | cwd | fakd | cwd − student | fakd − student |"
        in squeezed
    )
    left_out = text[text.index("## Left out") :]
    assert re.search(r"- No confusion.json, .* in \S+/cwd/seed1: trained by an older version", left_out)
    assert "covariance in metrics.json" not in left_out and "**Something is left out:** 1" in text
    assert "| tram | 0 | – | – | – | – | – | – |" in squeezed


def test_many_classes_and_one_run_have_their_pictures(runs):
    found = read_groups([runs])
    study, many = found.study, [f"class {i}" for i in range(120)]
    table = pd.DataFrame(np.random.default_rng(0).uniform(0, 80, (120, 3)), many, ["student", "cwd", "fakd"])
    assert class_plots.class_map(study, table).startswith(b"\x89PNG")
    alone = read_groups([runs / "student" / "seed0"])
    assert log_plots.spread({name: [r.log for r in group] for name, group in alone.groups.items()}) is None
    assert plots.class_bars(alone.study, plots.class_table(alone.study)).startswith(b"\x89PNG")
