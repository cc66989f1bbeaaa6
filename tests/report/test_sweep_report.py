"""The report of a sweep, from invented lines."""

import json
import math

import pandas as pd
import pytest
from sweep.conftest import content

from fakd.report import tables
from fakd.report.report import write_report
from fakd.report.statistics import paired_difference
from fakd.report.table import read_tables
from fakd.sweep.events import append, events_file, is_open, last, read_lines
from fakd.sweep.spec import parse_spec

LAMBDA = "KD.FAKDChannel.LAMBDA"
RUNS = {"student": 40.0, "cwd": 42.0, "fakd-lambda=0.5": 42.5, "fakd-lambda=2.0": 41.0}


def write_line(output, run, seed, miou, seconds=10.0, folder=None, result=(), **place):
    file = events_file(output, folder or output / "runs" / run / f"seed{seed}")
    values = {LAMBDA: float(run.split("=")[1])} if "=" in run else {}
    teacher = None if run in ("student", "teacher") else "/t"
    start = {"pair": "", "run": run, "seed": seed, "values": values, "folder": "/t", "teacher": teacher}
    append(file, "start", **(start | place))
    for part in (1, 2):
        append(file, "evaluation", iteration=50 * part, seconds=seconds * part / 2, mIoU=miou - 4 + 2 * part)
    scores = {"mIoU": miou, "mAcc": miou + 8, "aAcc": 80.0, "IoU": {"sky": 90.0, "tram": None}, "Acc": {}}
    content_of = {
        "dataset": "toyscenes_val",
        "metrics_by_dataset": {"toyscenes_val": scores},
        "metrics": scores,
        "iterations": 100,
        "wall_clock": seconds,
        "peak_memory_mb": 512.0,
        "params": 1000,
        "gflops": 1.0,
        "flops_size": [96, 96],
        "seconds_per_iteration": 0.1,
    }
    append(file, "result", result=content_of | dict(result))


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Two seeds of every run, cwd takes twice as long; one more run is not finished."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "projects" / "Mine").mkdir(parents=True)
    paper = {"metrics": ["mIoU", "mAcc"], "tables": {"One": {"here/pair": {"cwd": [33.82, 42.41]}}}}
    (tmp_path / "projects" / "Mine" / "paper.yaml").write_text(json.dumps(paper))
    pairs = {"": {"student": content()["base"], "paper": "here/pair"}}
    spec = parse_spec(content(paper="Mine", pairs=pairs, title="My table"))
    (tmp_path / "sweep.json").write_text(json.dumps(spec.content()))
    write_line(tmp_path, "teacher", 0, 60.0)
    for run, miou in RUNS.items():
        for seed in (0, 1, 2):
            write_line(
                tmp_path, run, seed, miou + seed * (1.1 if run == "cwd" else 1.0), 20 if run == "cwd" else 10
            )
    file = events_file(tmp_path, tmp_path / "runs" / "pd" / "seed0")
    append(file, "start", pair="", run="pd", seed=0, values={}, folder="", teacher="/t")
    append(file, "failed", error="it broke")
    return tmp_path


def read(sweep):
    """The only table of a sweep."""
    (table,), _ = read_tables([sweep])
    return table


def test_the_table_has_differences_equal_time_and_the_papers_values(sweep):
    table = tables.numbers(read(sweep), {"cwd": {"mIoU": 33.82, "mAcc": 42.41}}).set_index("run")
    assert list(table["seeds"]) == [1, 3, 3, 3, 3]
    cwd = table.loc["cwd"]
    assert cwd["vs student"] == pytest.approx(2.1) and cwd["paper mIoU"] == 33.82
    assert cwd["mIoU"] == pytest.approx(43.1) and cwd["equal iterations"] == pytest.approx(43.1)
    # Everybody had ten seconds; by then cwd had made its first evaluation only.
    assert cwd["equal time"] == pytest.approx(41.1) and table.loc["student", "equal time"] == pytest.approx(
        41.0
    )
    assert cwd["p"] == pytest.approx(0.00075, abs=1e-5)  # t = 2.1 / 0.1 * sqrt(3), two degrees of freedom


def test_the_time_of_runs_that_may_have_shared_cores_is_doubted(sweep):
    machine = {"machine": "2 x Some Processor, CPU"}
    for i, (run, miou) in enumerate(RUNS.items()):
        for seed in range(3):
            end = {"finished": f"2026-11-21T05:{10 * i + seed:02}:00+00:00"}
            seconds = 20 if run == "cwd" else 10
            write_line(sweep, run, seed, miou + seed, seconds, result=machine | end)
    assert not tables.may_share_cores(read(sweep))
    write_report([sweep], sweep, num_images=0)
    assert "Equal time is doubtful" not in (sweep / "report.md").read_text()
    write_line(sweep, "cwd", 2, 44.0, 20, result=machine | {"finished": "2026-11-21T05:00:05+00:00"})
    assert tables.may_share_cores(read(sweep))
    write_report([sweep], sweep, num_images=0)
    assert "Equal time is doubtful" in (sweep / "report.md").read_text()


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [(2.0, 1.6, ("2", "1.6")), ("1e-3", "cosine", ("1e-3", "cosine")), (True, [1, 2], ("True", "[1, 2]"))],
)
def test_the_schedule_of_a_trial_that_changed_its_values_is_told(sweep, first, second, told):
    schedule = [
        {"iteration": 0, "run": "fakd-lambda=2.0", "values": {LAMBDA: first}},
        {"iteration": 50, "run": "fakd-member0", "values": {LAMBDA: second}},
    ]
    write_line(sweep, "fakd-member0", 0, 43.0, values={LAMBDA: second}, schedule=schedule)
    write_report([sweep], sweep, num_images=0, sections=["values that"])
    text = (sweep / "report.md").read_text()
    assert "Values that changed on the way" in text
    rows = [line.split("|")[-4:-1] for line in text.splitlines() if f"{LAMBDA}=" in line]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["0", "fakd-lambda=2.0", f"{LAMBDA}={told[0]}"],
        ["50", "fakd-member0", f"{LAMBDA}={told[1]}"],
    ]
    assert read(sweep).runs.set_index("run").loc["fakd-member0", "values"] == {}


def test_the_report_says_what_is_missing_and_draws_the_curve(sweep):
    page = write_report([sweep], sweep, num_images=0, command="the command").read_text()
    text = (sweep / "report.md").read_text()
    assert "My table" in page and "the command" in text and "pd/seed0: failed: it broke" in text
    again = write_report([sweep], sweep, num_images=0)  # as the report before said
    assert "the command" in again.read_text()
    assert "33.82" in text and LAMBDA in text or (sweep / "pictures" / "values.png").exists()
    assert (sweep / "pictures" / "time.png").exists()
    teacher = next(line for line in text.splitlines() if line.startswith("| teacher"))
    assert [cell.strip() for cell in teacher.split("|")[2:4]] == ["1", "60.00"]
    assert set(pd.read_csv(sweep / "table.csv")["run"]) == {"teacher", *RUNS}
    assert r"\begin{tabular}" in (sweep / "table.tex").read_text()


def test_a_run_whose_name_holds_a_plus_is_found_in_a_sweep_that_was_moved(sweep):
    place = sweep / "runs" / "cwd-lr=1e+05" / "seed0"
    write_line(sweep, "cwd-lr=1e+05", 0, 44.0)
    file = events_file(sweep, place)
    file.write_text(file.read_text().replace('"/t"', json.dumps(f"/elsewhere/{place.relative_to(sweep)}"), 1))
    assert '"folder": "/elsewhere/' in file.read_text()
    folders = {row["run"]: row["folder"] for row in read(sweep).runs.to_dict("records")}
    assert folders["cwd-lr=1e+05"] == place


def test_pairs_are_parts_of_one_report_each_with_its_teacher(sweep):
    for pair in ("small", "large"):
        folder = sweep / "teachers" / pair / "trained"
        write_line(sweep, "teacher", 0, 61.0 if pair == "small" else 63.0, folder=folder)
        for run in ("student", "cwd"):
            place = sweep / pair / run / "seed0"
            to = None if run == "student" else str(folder)
            write_line(sweep, run, 0, 50.0, folder=place, pair=pair, teacher=to)
    found = {table.label: table for table in read_tables([sweep])[0]}
    assert found["small"].names == found["large"].names == ["teacher", "student", "cwd"]
    assert found["small"].by_seed("teacher", "toyscenes_val").tolist() == [61.0]
    assert found["large"].by_seed("teacher", "toyscenes_val").tolist() == [63.0]
    write_report([sweep], sweep, num_images=0, sections=["results"])
    text = (sweep / "report.md").read_text()
    assert "## small\n" in text and "## large\n" in text and text.count("### Results") == 3


@pytest.mark.parametrize(
    ("t", "freedom", "p"),  # from tables of Student's t
    [
        (12.706, 1, 0.05),
        (4.303, 2, 0.05),
        (3.182, 3, 0.05),
        (2.776, 4, 0.05),
        (2.228, 10, 0.05),
        (2.201, 11, 0.05),
    ],
)
def test_the_paired_test_knows_the_tables(t, freedom, p):
    differences = pd.Series(range(freedom + 1), dtype=float)
    differences += t * differences.sem() - differences.mean()
    assert paired_difference(differences + 40.0, 0 * differences + 40.0).p == pytest.approx(p, abs=1e-4)


def test_the_paired_test_of_seeds_that_agree():
    same = pd.Series([40.0, 41.0])
    assert paired_difference(same, same).p == 1 and paired_difference(same + 1, same).p == 0
    assert math.isnan(paired_difference(same[:1], same).p)


def test_sweeps_side_by_side(sweep):
    found = read(sweep)
    table = tables.side_by_side([("first", found), ("second", found)])
    assert list(table["run"])[:2] == ["teacher", "student"] and set(table["run"]) == {"teacher", *RUNS}
    assert list(table.columns) == ["run", "first", "vs student", "second", "vs student"]
    cwd = table[table["run"] == "cwd"].iloc[0]
    assert (
        cwd.iloc[1].startswith("43.10 ±") and cwd.iloc[2] == cwd.iloc[4] and cwd.iloc[2].startswith("+2.10")
    )
    write_report([sweep, sweep], sweep / "both", side_by_side=True, name="both", command="again")
    text = (sweep / "both" / "both.md").read_text()
    assert "My table |" in text and "again" in text and "pd/seed0: failed: it broke" in text


def test_a_torn_line_is_skipped_and_an_end_is_known(tmp_path):
    file = tmp_path / "lines" / "a.jsonl"
    assert is_open(file)
    append(file, "start")
    append(file, "failed", error="x")
    assert not is_open(file)
    append(file, "start")
    assert is_open(file) and last(file, "failed") == {"event": "failed", "error": "x"}
    with open(file, "a") as torn:
        torn.write('{"event": "resu')
    assert [line["event"] for line in read_lines(file)] == ["start", "failed", "start"]


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no run"):
        write_report([tmp_path], tmp_path)


def test_a_damaged_sweep_is_named_and_its_runs_are_read_without_it(sweep):
    folder = sweep / "runs" / "student" / "seed0"
    folder.mkdir(parents=True)
    (sweep / "sweep.json").write_text("{")
    with pytest.raises(FileNotFoundError, match="sweep.json: cannot be read as JSON"):
        read_tables([sweep])
