"""That the benchmarks run and judge, at shapes too small to say anything about time."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is not installed with the package

from benchmarks import harness, losses, reference, relation, tables
from benchmarks.report import Bar, Report, main


@pytest.fixture(autouse=True)
def settled():
    threads = torch.get_num_threads()
    harness.settle()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("part", "numbers"),
    [(losses, [*"1234567", "17"]), (tables, ["8", "9", "10", "11"]), (relation, ["12", "13", "14"])],
)
def test_every_bar_is_measured(part, numbers):
    report = Report(tiny=True)
    part.fill(report)
    assert {bar.number for bar in report.bars} == set(numbers)
    assert all(f"| {bar.number} | {bar.what} |" in report.text() for bar in report.bars)


def test_the_step_runs(monkeypatch):
    step = pytest.importorskip("benchmarks.step", reason="needs detectron2")
    monkeypatch.chdir(Path(__file__).parents[2])
    report = Report(tiny=True)
    step.fill(report)
    assert [bar.number for bar in report.bars] == ["step"] * 12


def test_packing_runs(monkeypatch):
    sweep = pytest.importorskip("benchmarks.sweep", reason="needs detectron2")
    monkeypatch.chdir(Path(__file__).parents[2])
    report = Report(tiny=True)
    sweep.fill(report)
    assert [bar.number for bar in report.bars] == ["pack"]


def test_the_fast_step_runs(monkeypatch):
    fast = pytest.importorskip("benchmarks.fast", reason="needs detectron2")
    monkeypatch.chdir(Path(__file__).parents[2])
    report = Report(tiny=True)
    fast.fill(report)
    assert [bar.number for bar in report.bars] == ["fast"] * 5


def test_allocations_are_those_alive_together():
    def step():
        first = torch.ones(1000, dtype=torch.uint8)
        del first
        second = torch.ones(3000, dtype=torch.uint8)
        third = torch.ones(2000, dtype=torch.uint8)
        del second, third

    assert harness.allocations(step) == (5000, 3000)


def test_a_wrong_variant_is_not_timed():
    x = torch.rand(3, 4)
    variants = {"right": lambda x: (x**2).sum(), "wrong": lambda x: 1.0001 * (x**2).sum()}
    report = Report(tiny=True)
    with pytest.raises(AssertionError, match="squares, wrong: relative error 1.0e-04"):
        report.compare("squares", variants, [x], harness.Floor(8))
    assert report.rows == []


@pytest.mark.parametrize(
    ("value", "at_most", "timed", "verdict"),
    [
        (3.0, False, True, "met"),
        (2.41, False, True, "within noise"),
        (2.39, False, True, "MISSED"),
        (3.7, True, True, "within noise"),
        (2.99, False, False, "MISSED"),
        (3.0004, True, False, "met"),
        (0.0, False, False, "MISSED"),
        (float("nan"), True, True, "MISSED"),
    ],
)
def test_verdict_on_a_goal_of_three(value, at_most, timed, verdict):
    assert Bar("1", "", value, 3.0, at_most, timed).verdict == verdict


@pytest.mark.parametrize(("values", "code"), [((3.0, 2.41), 0), ((3.0, 2.39), 1), ((), 0)])
def test_a_bar_below_four_fifths_is_an_error_of_the_command(values, code, capsys):
    def fill(report):
        for value in values:
            report.at_least("1", "speed-up", value, 3.0)

    assert main(fill, []) == code
    assert ("MISSED" in capsys.readouterr().out) is bool(code)


def test_literal_forms_agree_with_plain_ones_without_augmentation():
    student, teacher, table, labels = losses.inputs(2, 4, 9)
    pd = reference.pixel_kl(student, teacher, 1.0)
    cwd = reference.channel_kl(student, teacher, 4.0)
    nothing = torch.zeros_like(table)
    torch.testing.assert_close(reference.augmented_pixel_kl(student, teacher, nothing), pd)
    torch.testing.assert_close(reference.augmented_channel_kl(student, teacher, nothing, labels, 4.0), cwd)
    torch.testing.assert_close(reference.channel_kl_log_softmax(student, teacher, 4.0), cwd)
    torch.testing.assert_close(reference.log_softmax_kl(student, teacher, 1.0, 1), pd)
    torch.testing.assert_close(reference.log_softmax_kl(student, teacher, 4.0, 2), cwd)
