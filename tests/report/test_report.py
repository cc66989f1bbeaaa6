"""The report of invented runs says what their numbers say, and nothing more."""

import json
import re
import shutil

import pytest
from fake_runs import write_run

from fakd.report import headline, tables
from fakd.report.report import write_report
from fakd.report.table import read_tables


def read(folder):
    """The only table of a folder."""
    (table,), _ = read_tables([folder])
    return table


@pytest.fixture
def study(tmp_path):
    """CWD gains by the same 1.9 at every seed; FAKD by 2.3, 0.4 and 2.9."""
    write_run(tmp_path, "teacher", 0, 62.13)
    for seed, (student, cwd, fakd) in enumerate([(41.2, 43.1, 43.5), (41.6, 43.5, 42.0), (42.0, 43.8, 44.9)]):
        write_run(tmp_path, "student", seed, student)
        write_run(tmp_path, "cwd", seed, cwd)
        write_run(tmp_path, "fakd", seed, fakd)
    return tmp_path


def test_headline_tells_a_gain_from_seed_variance(study):
    found = read(study)
    assert "Of 2 methods, 1 did better" in headline.lead(found) and "0 worse" in headline.lead(found)
    teacher, student, cwd, fakd = headline.sentences(found)
    assert "62.13 mIoU (1 seed)" in teacher
    assert "41.60 ± 0.40 mIoU (3 seeds), 20.53 points below the teacher" in student
    assert (
        "1.87 points above" in cwd
        and "(+1.72 to +2.01): beyond seed variance" in cwd
        and "9% of the distance" in cwd
    )
    assert "1.87 points above" in fakd and "(−1.38 to +5.11): no difference is shown" in fakd
    assert "distance to the teacher" not in fakd


def test_headline_says_when_a_method_loses(tmp_path):
    for seed in range(3):
        write_run(tmp_path, "student", seed, 41 + seed)
        write_run(tmp_path, "cwd", seed, 40 + 1.01 * seed)
    found = read(tmp_path)
    assert "0 did better" in headline.lead(found) and "1 worse" in headline.lead(found)
    assert "0.99 points below the student" in headline.sentences(found)[1]
    assert tables.summary(found, "toyscenes_val").iloc[1]["vs student"].endswith("▼")


def test_one_seed_is_called_what_it_is(tmp_path):
    write_run(tmp_path, "student", 0, 41.2)
    write_run(tmp_path, "fakd", 0, 45.0)
    found = read(tmp_path)
    assert "a single seed proves little" in headline.lead(found)
    assert "3.80 points above the student alone at one seed" in headline.sentences(found)[1]
    assert tables.summary(found, "toyscenes_val")["vs student"].tolist() == ["", "+3.80"]


def test_two_seeds_are_too_few(tmp_path):
    for seed in range(2):
        write_run(tmp_path, "student", seed, 41.2)
        write_run(tmp_path, "fakd", seed, 45.0 + seed)
    found = read(tmp_path)
    assert "two seeds, too few" in headline.lead(found)
    assert "4.30 points above the student alone (± 0.71 over two seeds" in headline.sentences(found)[1]


def test_a_teacher_below_its_student_is_named(tmp_path):
    write_run(tmp_path, "teacher", 0, 40.0)
    write_run(tmp_path, "student", 0, 41.2)
    assert "1.20 points above the teacher: there is little to learn" in headline.sentences(read(tmp_path))[1]
    assert "Nothing can be compared yet" in headline.lead(read(tmp_path))
    assert write_report([tmp_path], tmp_path, num_images=0).exists()


def test_tables(study):
    found = read(study)
    summary = tables.summary(found, "toyscenes_val")
    assert summary["run"].tolist() == ["teacher", "student", "cwd", "fakd"]
    assert summary["vs student"].tolist() == ["", "", "+1.87 ± 0.06 ▲", "+1.87 ± 1.31"]
    runs = tables.every_run(found)
    assert runs[["run", "seed", "mIoU", "vs student"]].values.tolist()[-1] == ["fakd", "2", "44.90", "+2.90"]
    assert runs.iloc[0][["parameters", "GFLOPs", "s/iteration", "wall-clock", "peak memory"]].tolist() == [
        "48 M",
        "6.78",
        "0.210",
        "2.2 min",
        "812 MB",
    ]
    protocol = tables.protocol(found).iloc[0].tolist()
    versions = "torch 2.15.0, detectron2 0.6, python 3.11.7"
    machine, time = "2 x Some Processor, CPU", "2026-11-21T05:00:00+00:00"
    config = "configs/toyscenes/teacher.yaml"
    row = ["teacher", "0", config, "toyscenes_train", "600", "8", "96x96", "abc1234", machine, versions, time]
    assert protocol == row
    assert tables.pairs(found).values.tolist()[0][0::3] == ["fakd − cwd", "3"]
    per_class = tables.class_texts(found, None).set_index("class")
    assert list(per_class.index) == ["sky", "road", "car", "pole", "tram"]
    assert per_class.loc["tram"].tolist() == ["–"] * 6
    assert re.fullmatch(r"[+−]\d\.\d\d \(.+ to .+\)( ▲| ▼)?", per_class.loc["sky", "cwd − student"])


def test_a_winner_is_named_only_where_the_interval_does(study):
    assert "**" not in str(tables.summary(read(study), "toyscenes_val").values)  # fakd is not shown above cwd
    for seed in range(3):
        shutil.rmtree(study / "fakd" / f"seed{seed}")
    found = tables.summary(read(study), "toyscenes_val").set_index("run")
    assert found.loc["cwd", "mIoU"] == "**43.47 ± 0.35**"
    assert found.loc["student", "mIoU"] == "41.60 ± 0.40" and found.loc["teacher", "mIoU"] == "62.13"
    assert r"\textbf{43.47 $\pm$ 0.35}" in tables.latex(found.reset_index())


def test_a_difference_of_nothing_has_no_side(tmp_path):
    write_run(tmp_path, "student", 0, 41.2)
    write_run(tmp_path, "fakd", 0, 41.198)
    assert "within 0.01 points of the student alone" in headline.sentences(read(tmp_path))[1]
    assert tables.summary(read(tmp_path), "toyscenes_val")["vs student"].tolist() == ["", "+0.00"]


def test_files_and_their_links(study):
    page = write_report([study], study, num_images=0, command="python tools/study.py --seeds 0 1 2 <&>")
    text = (study / "report.md").read_text()
    links = re.findall(r"\]\((.+?)\)", text)
    assert links == [f"pictures/{n}.png" for n in ("overview", "iou_per_class", "difficulty", "curves")]
    assert all((study / link).read_bytes().startswith(b"\x89PNG") for link in links)
    assert "--seeds 0 1 2 <&>" in text and "Left out" in text
    content = page.read_text()
    assert content.count("data:image/png;base64,") == 4
    assert "--seeds 0 1 2 &lt;&amp;&gt;" in content
    assert not re.search(r'(src|href)="(?!data:|#)', content)  # nothing to load from elsewhere
    assert "<strong>cwd</strong> reaches" in content and '<td class="up">+1.87' in content
    assert str(study) not in text + content  # no path of this machine
    assert not list(study.glob("**/*.partial"))


def test_a_class_whose_name_holds_dollars_is_drawn(study):
    for file in study.glob("*/seed*/result.json"):
        file.write_text(file.read_text().replace('"sky"', r'"$\\frac$ x"'))
    write_report([study], study, num_images=0)
    assert r"$\frac$ x" in (study / "table.csv").read_text() + (study / "report.md").read_text()
    assert list((study / "pictures").glob("*.png"))


def test_gaps_are_named_and_the_rest_goes_on(study):
    (study / "fakd" / "seed1" / "result.json").write_text('{"method": "fa')
    (study / "cwd" / "seed2" / "result.json").unlink()
    (study / "pd" / "seed0").mkdir(parents=True)
    wrong = json.loads((study / "student" / "seed2" / "result.json").read_text())
    wrong["metrics_by_dataset"]["toyscenes_val"]["mIoU"] = "high"
    (study / "student" / "seed2" / "result.json").write_text(json.dumps(wrong))
    write_report([study], study, num_images=0, sections=["results"])
    text = (study / "report.md").read_text()
    missing = text[text.index("## Left out") :]
    assert "cwd/seed2: not finished (last logged iteration 600)" in missing
    assert "fakd/seed1: cannot be read: " in missing and "result.json: cannot be read as JSON" in missing
    assert "pd/seed0: not finished (nothing logged)" in missing
    assert "pd, seed 1: no run, though others have this seed" in missing
    assert (
        "student/seed2: cannot be read: result.json: metrics_by_dataset.toyscenes_val.mIoU is 'high'"
        in missing
    )
    assert "**There are gaps:** 6 " in text
    assert "fakd | 2 |" in re.sub(" +", " ", text)


def test_further_test_sets_come_after_the_primary_one(tmp_path):
    for seed in range(3):
        for run, miou in (("student", 41.0 + seed), ("cwd", 43.0 + 1.1 * seed)):
            write_run(tmp_path, run, seed, miou, ("camvid_val", "camvid_test"))
    found = read(tmp_path)
    assert found.datasets == ["camvid_val", "camvid_test"]
    assert headline.sentences(found)[-1].startswith(
        "On `camvid_test`: student 39.00 ± 1.00, cwd 41.10 ± 1.10 (+1.85 to"
    )
    assert tables.summary(found, "camvid_test")["mIoU"].tolist() == ["39.00 ± 1.00", "**41.10 ± 1.10**"]
    columns = list(tables.every_run(found))
    assert columns.index("mIoU (camvid_val)") < columns.index("mIoU (camvid_test)")
    assert set(found.curves["iteration"]) == set(range(100, 601, 100))


def test_curves_of_a_resumed_and_a_killed_run(tmp_path):
    folder = write_run(tmp_path, "student", 0, 41.2)
    (folder / "metrics.json").write_text(
        '{"iteration": 100, "sem_seg/mIoU": 1.0}\n{"iteration": 50, "total_loss": 3}\n'
        '{"iteration": 100, "sem_seg/mIoU": 2.0}\n{"iteration": 200, "sem_seg/mIoU": 4.0}\n{"iterati'
    )
    curves = read(tmp_path).curves
    assert curves[["iteration", "mIoU"]].values.tolist() == [[100, 2.0], [200, 4.0]]


def test_old_results_without_optional_fields(tmp_path):
    folder = tmp_path / "student" / "seed0"
    folder.mkdir(parents=True)
    metrics = {"mIoU": 41.0, "mAcc": None, "aAcc": 70.0}
    (folder / "result.json").write_text(json.dumps({"dataset": "toyscenes_val", "metrics": metrics}))
    write_report([tmp_path], tmp_path)
    assert "41.00" in (tmp_path / "report.md").read_text()
    assert tables.protocol(read(tmp_path)).iloc[0]["machine"] == "–"


def test_nothing_to_report(tmp_path):
    with pytest.raises(FileNotFoundError, match="No folder .*/absent'"):
        write_report([tmp_path / "absent"], tmp_path)
    (tmp_path / "cwd" / "seed0").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="No finished run .*cwd/seed0: not finished"):
        write_report([tmp_path], tmp_path)


def test_tool(tool, study):
    code, told = tool("report", study, "--command", "make it", "--images", 0)
    assert (code, told.strip()) == (0, str(study / "report.html"))
    assert "make it" in (study / "report.md").read_text()
    code, told = tool("report", study / "absent")
    assert code == 1 and told.startswith("error: No folder")
