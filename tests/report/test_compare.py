"""Finished runs side by side: how they are grouped and refused, and the numbers behind the pictures."""

import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from fake_runs import finished
from matplotlib.figure import Figure

from fakd.report import class_plots, log_plots, plots, tables
from fakd.report.network_views import NetworkViews
from fakd.report.records import write_lines
from fakd.report.report import write_report
from fakd.report.sections import Context
from fakd.report.table import read_tables


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


def read(*paths, **options):
    """The only table of some runs, and the problems."""
    (table,), problems = read_tables(paths, **options)
    return table, problems


def seeds(table):
    return {name: [row["seed"] for row in table.of(name)] for name in table.names}


def test_seeds_are_taken_together_and_the_teacher_and_the_baseline_found(runs):
    table, problems = read(runs)
    assert list(table.names) == ["teacher", "student", "cwd", "fakd"]
    assert seeds(table) == {"teacher": [0], "student": [0, 1], "cwd": [0, 1], "fakd": [0, 1]}
    assert table.baseline == "student" and problems == []
    assert table.by_seed("fakd", "toyscenes_val").tolist() == [44.0, 45.0]
    assert {name: row["seed"] for name, row in table.firsts().items()} == dict.fromkeys(table.names, 0)
    other, _ = read(runs / "student", runs / "fakd", baseline=runs / "cwd" / "seed1")
    assert other.baseline == "cwd" and other.methods == ["fakd", "student"]
    assert list(other.names) == ["cwd", "fakd", "student"] and len(other.of("cwd")) == 1
    named, _ = read(runs, baseline="fakd")
    assert named.baseline == "fakd" and named.methods == ["cwd", "student"]


def test_runs_of_one_method_are_told_apart_by_what_differs(runs):
    weights = str(runs / "big" / "seed0" / "model_final.pth")
    finished(
        runs, "fakd", 0, 44.5, "KD.TEACHER.WEIGHTS", weights, "KD.FAKDChannel.LAMBDA", "0.5", name="half"
    )
    twin = finished(runs, "student", 1, 41.7, name="again", finished="2026-11-22T05:00:00+00:00")
    table, problems = read(*(runs / n for n in ("student", "fakd", "half", "again")))
    assert table.methods == ["fakd (LAMBDA 0.5)", "fakd (LAMBDA 1.0)"]
    assert [len(table.of(name)) for name in table.methods] == [1, 2]
    assert problems[0] == (
        f"{twin.parent.name}/seed1: has the config and the seed of student/seed1, which is shown instead."
    )


def test_students_of_two_teachers_are_told_apart(runs):
    other = finished(runs, "student", 0, 62.0, "MODEL.BACKBONE.WIDTH", "0.75", name="bigger")
    finished(runs, "cwd", 0, 45.0, "KD.TEACHER.WEIGHTS", str(other / "model_final.pth"), name="cwd2")
    table, _ = read(runs)
    assert table.teachers == ["teacher (WIDTH 0.5)", "teacher (WIDTH 0.75)"]
    assert table.methods == ["cwd (teacher WIDTH 0.5)", "cwd (teacher WIDTH 0.75)", "fakd"]
    assert table.baseline == "student"


def test_students_of_teachers_of_two_seeds_are_told_apart(tmp_path):
    """As of two sweeps, each with a teacher of its own."""
    for seed in (0, 7):
        teacher = finished(tmp_path, "student", seed, 60.0, "MODEL.BACKBONE.WIDTH", "0.5", name=f"big{seed}")
        weights = str(teacher / "model_final.pth")
        finished(tmp_path, "cwd", 0, 44.0, "KD.TEACHER.WEIGHTS", weights, name=f"cwd{seed}")
    finished(tmp_path, "student", 0, 41.0)
    table, problems = read(tmp_path)
    assert table.methods == ["cwd (teacher seed 0)", "cwd (teacher seed 7)"]
    assert not [problem for problem in problems if "instead" in problem]


def test_what_cannot_be_compared_is_named_with_its_remedy(runs, tmp_path):
    with pytest.raises(FileNotFoundError, match="No folder .*absent': give folders that training left"):
        read_tables([runs / "absent"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty' holds no run: there is no config.yaml"):
        read_tables([tmp_path / "empty"])
    (runs / "fakd" / "seed1" / "result.json").unlink()
    (runs / "cwd" / "seed0" / "result.json").write_text('{"method": "c')
    told = read(*(runs / n for n in ("student", "fakd", "cwd")))[1]
    assert re.search(r"fakd/seed1: not finished \(last logged iteration 600\).*--resume", told[0])
    assert "cwd/seed0: cannot be read: " in told[1] and "result.json: cannot be read as JSON" in told[1]
    assert len(told) == 2
    with pytest.raises(FileNotFoundError, match="No finished run among them.*seed1: not finished"):
        read_tables([runs / "fakd" / "seed1"])
    with pytest.raises(ValueError, match="The baseline .*fakd/seed1' is not finished"):
        read_tables([runs / "student"], baseline=runs / "fakd" / "seed1")


def test_a_run_that_only_trained_is_called_untested(runs):
    file = runs / "cwd" / "seed0" / "result.json"
    untested = {"dataset": None, "metrics": {}, "metrics_by_dataset": {}}
    file.write_text(json.dumps(json.loads(file.read_text()) | untested))
    (told,) = read(runs)[1]
    assert "cwd/seed0: was not tested (DATASETS.TEST is empty)" in told and "again" not in told


@pytest.mark.parametrize(("here", "path"), [("a", "."), ("a/cwd", ".."), ("a/cwd/seed0", ".")])
def test_runs_are_read_from_within_their_folders(tmp_path, monkeypatch, here, path):
    (tmp_path / "teachers").mkdir()
    finished(tmp_path / "a", "cwd", 0, 43.0)
    expected = read(tmp_path)[0].runs["pair"].tolist()
    monkeypatch.chdir(tmp_path / here)
    table, _ = read(path)
    assert table.runs["pair"].tolist() == expected == ["a"] and table.names == ["cwd"]


def test_damaged_files_cost_no_more_than_what_they_hold(runs, tmp_path):
    (runs / "sweep.json").write_text("{")
    (runs / "cwd" / "seed1" / "config.yaml").write_text("MODEL: 5")
    (runs / "fakd" / "seed0" / "result.json").unlink()
    (runs / "fakd" / "seed0" / "metrics.json").write_text("5\n")
    write_report([runs], tmp_path / "out", num_images=0, sections=["results"])
    text = (tmp_path / "out" / "report.md").read_text()
    assert text.startswith(f"# Sweep {runs.name}\n")
    assert "sweep.json: cannot be read as JSON" in text and "shown without their places" in text
    assert "cwd/seed1: cannot be read: config.yaml: no config of a run" in text
    assert "fakd/seed0: not finished (nothing logged)" in text


def test_runs_on_two_datasets_are_two_parts_of_one_report(runs, tmp_path):
    for run, miou in (("student", 50.0), ("pd", 52.0)):
        options = ("DATASETS.TEST", "('camvid_val',)")
        finished(runs, run, 0, miou, *options, name=f"{run}_there", datasets=("camvid_val",))
    found, problems = read_tables([runs])
    assert {table.label: table.names for table in found} == {
        "camvid_val": ["student", "pd"],
        "toyscenes_val": ["teacher", "student", "cwd", "fakd"],
    }
    assert problems == []
    write_report([runs], tmp_path / "out", num_images=0, sections=["summary", "per class"])
    text = (tmp_path / "out" / "report.md").read_text()
    assert text.startswith("# Distillation on ") and "## camvid_val" in text and "## toyscenes_val" in text
    assert text.count("### Per class") == 2
    pictures = re.findall(r"pictures/(iou_per_class\w*).png", text)
    assert sorted(pictures) == ["iou_per_class_camvid_val", "iou_per_class_toyscenes_val"]
    assert set(pd.read_csv(tmp_path / "out" / "table.csv")["pair"]) == {"camvid_val", "toyscenes_val"}


def test_teachers_whose_students_are_not_finished_are_told(tmp_path):
    """As in a sweep of several teachers that was stopped early."""
    for seed, miou in enumerate((60.0, 61.0)):
        finished(
            tmp_path, "teacher", seed, miou, "SOLVER.MAX_ITER", 100 + seed, recipe="student", name=f"t{seed}"
        )
    (table,), problems = read_tables([tmp_path])
    assert len(table.names) == 2 and not problems


def test_a_report_goes_by_the_test_set_that_is_asked_for(tmp_path):
    both = ("toyscenes_val", "camvid_val")
    for seed in range(3):
        for run, miou in (("student", 50.0 + seed), ("pd", 52.0 + 1.1 * seed)):
            finished(tmp_path / "runs", run, seed, miou, datasets=both, name=f"{run}{seed}")
    write_report(
        [tmp_path / "runs"], tmp_path / "out", num_images=0, sections=["results"], dataset="camvid_val"
    )
    assert list(pd.read_csv(tmp_path / "out" / "table.csv")["mIoU"].round(1)) == [48.0, 50.1]
    write_report([tmp_path / "runs"], tmp_path / "out", side_by_side=True, dataset="camvid_val")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "on `camvid_val`" in text and re.search(r"pd +\| \*\*50.10 ± 1.10\*\* +\| \+2.10 ± 0.10 ▲", text)
    table, _ = read(tmp_path / "runs")
    # Training was followed on the runs' first set, and only its confusions are there.
    other = replace(table, datasets=table.datasets[::-1])
    assert "equal iterations" in tables.summary(other, "toyscenes_val")
    assert "equal iterations" not in tables.summary(other, "camvid_val")
    assert tables.numbers(other, {})["equal iterations"].isna().all()
    assert plots._wide(other, "")[1].get_ylabel() == "mIoU on toyscenes_val, %"
    assert set(Context(table).confusions) == {"student", "pd"} and Context(other).confusions == {}
    with pytest.raises(ValueError, match="No run was tested on 'camvid_test'. Tested on: camvid_val, toy"):
        write_report([tmp_path / "runs"], tmp_path / "out", dataset="camvid_test")


def test_a_run_without_the_test_set_that_is_asked_for_is_left_out_of_its_sections(tmp_path):
    both = ("toyscenes_val", "camvid_val")
    for run, sets in (("student", both), ("pd", both), ("cwd", both[:1])):
        finished(tmp_path / "runs", run, 0, 50.0, datasets=sets)
    write_report([tmp_path / "runs"], tmp_path / "out", num_images=0, dataset="camvid_val")
    section = (tmp_path / "out" / "report.md").read_text().partition("Per class")[2]
    assert "pd − student" in section and "cwd − student" not in section
    # Side by side, a folder without the set is left out, unless that leaves none.
    for name in ("one", "two"):
        finished(tmp_path / name, "student", 0, 50.0, datasets=both if name == "one" else both[:1])
    given = {"side_by_side": True, "dataset": "camvid_val"}
    write_report([tmp_path / "one", tmp_path / "two"], tmp_path / "out", **given)
    assert "two: No run was tested on 'camvid_val'" in (tmp_path / "out" / "report.md").read_text()
    with pytest.raises(ValueError, match="No run was tested on 'camvid_val'"):
        write_report([tmp_path / "two"], tmp_path / "out", **given)


def test_a_report_from_lines_is_that_from_folders_but_for_what_lines_cannot_hold(runs, tmp_path):
    lines = tmp_path / "runs.jsonl"
    write_lines([runs], lines)
    write_report([runs], tmp_path / "a", num_images=0)
    write_report([lines], tmp_path / "b", num_images=40)
    one, two = ((tmp_path / n / "report.md").read_text() for n in "ab")
    assert (tmp_path / "a" / "table.csv").read_text() == (tmp_path / "b" / "table.csv").read_text()
    left_out = two[two.index("## Left out") :]
    assert "Examples, because the weights of no run are at hand." in left_out
    assert "Covariance of the features, because no metrics.json" in left_out
    assert "Left out" not in one
    sections = [set(re.findall(r"^## (.+)", text, re.M)) for text in (one, two)]
    assert sections[0] - sections[1] == {"Covariance of the features"}


def test_only_the_sections_asked_for_are_written(runs, tmp_path):
    write_report([runs], tmp_path / "out", sections=["per class", "What it costs"])
    text = (tmp_path / "out" / "report.md").read_text()
    assert re.findall(r"^## (.+)", text, re.M) == ["Per class", "What it costs"]
    with pytest.raises(ValueError, match="no section 'Nonsense'. There are: Summary, Results"):
        write_report([runs], tmp_path / "out", sections=["Nonsense"])


def test_the_protocol_tells_once_what_all_runs_share_and_the_costs_explain_memory(runs, tmp_path):
    write_report([runs], tmp_path / "out", sections=["Protocol", "What it costs"])
    text = (tmp_path / "out" / "report.md").read_text()
    assert len(re.findall(r"The same in every run: .*trained on toyscenes_train", text)) == 1
    assert text.count("toyscenes_train") == 1
    assert text.count("Peak memory is the most that was allocated") == 1


def test_a_method_has_one_colour_in_every_report(runs):
    both, alone = read(runs)[0], read(runs / "student", runs / "fakd")[0]
    assert plots.colours(both)["fakd"] == plots.colours(alone)["fakd"] != plots.colours(both)["cwd"]


def test_no_two_methods_share_a_colour():
    names = ["teacher", "student", *plots._METHODS]
    found = plots.colours(SimpleNamespace(names=names))
    assert len(set(found.values())) == len(names)


def test_hard_and_easy_halves_by_hand(runs):
    table = read(runs)[0]
    iou = pd.DataFrame(
        {"student": [80.0, 10, 50, 30, np.nan], "cwd": [81.0, 14, 49, 32, np.nan]}, list("abcde")
    )
    ordered = class_plots.by_difficulty(table, iou)
    assert list(ordered.index) == ["b", "d", "c", "a"]
    assert class_plots.halves(ordered).loc["cwd"].tolist() == [3.0, 0.0]
    shares = pd.Series([40.0, 1, 30, 29, 0], iou.index)
    assert class_plots.rank_correlations(table, iou, shares)["cwd"] == pytest.approx(-0.8)


def test_confusions_that_changed_most_by_hand(runs):
    table = read(runs)[0]
    before = class_plots.confusion_rates(np.array([[8, 2, 0], [0, 10, 0], [0, 0, 0]]))
    after = class_plots.confusion_rates(np.array([[90, 0, 10], [3, 7, 0], [0, 0, 0]]))
    rates = {"student": before, "fakd": after}
    changed = class_plots.changed_confusions(rates, table, ["a", "b", "c"], 9)
    assert changed.values.tolist() == [["b", "a", 0.0, 30.0], ["a", "b", 20.0, -20.0], ["a", "c", 0.0, 10.0]]


def test_the_page_holds_every_picture_and_says_what_is_left_out(runs, tmp_path):
    (runs / "cwd" / "seed1" / "confusion.json").unlink()
    page = write_report([runs], tmp_path / "out", num_images=0, command="the command <&>", name="compare")
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
    assert not re.search(r'(src|href)="(?!data:|#)', content)  # nothing to load from elsewhere
    assert "the command &lt;&amp;&gt;" in content
    squeezed = re.sub(" +", " ", text)
    assert (
        "| class | % of pixels | teacher | student | cwd | fakd | cwd − student | fakd − student |"
        in squeezed
    )
    left_out = text[text.index("## Left out") :]
    assert re.search(r"- No confusion.json in \S+/cwd/seed1: trained by an older version", left_out)
    assert "ovariance" not in left_out and "**There are gaps:** 1 " in text
    assert "| tram | 0 | – | – | – | – | – | – |" in squeezed


def test_logs_and_covariances_are_those_of_their_seed_where_one_has_no_log(runs):
    """The network shown is that of the smallest seed that most runs have, here 0 and then 1."""
    (runs / "fakd" / "seed0" / "metrics.json").unlink()
    table = read(runs)[0]
    assert {name: list(logs) for name, logs in table.logs.items()} == {
        "teacher": [0],
        "student": [0, 1],
        "cwd": [0, 1],
        "fakd": [1],
    }
    views = NetworkViews(table, 1, [], {})
    views._samples = SimpleNamespace(classes=["sky", "tram"], palette=np.zeros((3, 3)))
    assert views._added("fakd") == [] and views._added("a teacher that is no run") == []
    for run in ("student", "cwd"):
        shutil.rmtree(runs / run / "seed0")
    views.table = read(runs)[0]
    assert views._added("fakd") == [2 * 39 / 40] * 2 + [0.0]


def test_many_classes_and_one_run_have_their_pictures(runs):
    table, many = read(runs)[0], [f"class {i}" for i in range(120)]
    iou = pd.DataFrame(np.random.default_rng(0).uniform(0, 80, (120, 3)), many, ["student", "cwd", "fakd"])
    assert class_plots.class_map(table, iou).startswith(b"\x89PNG")
    alone = read(runs / "student" / "seed0")[0]
    assert not list(log_plots.spread(alone))
    assert plots.class_bars(alone).startswith(b"\x89PNG")


def test_the_names_of_points_do_not_cover_each_other():
    figure = Figure(figsize=(4, 3), layout="constrained")
    axes = figure.subplots()
    points = {f"class {i}": (i % 3 + i / 100, i % 2 + i / 50) for i in range(12)}
    axes.scatter(*zip(*points.values(), strict=True))
    figure.draw_without_rendering()
    plots.label_points(axes, points, 20)
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == len(points)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
