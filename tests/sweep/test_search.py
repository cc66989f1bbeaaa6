"""Points that Optuna asks for, and its journal, which is all that a resumed sweep knows of them."""

import json
import sys

import pytest

from fakd.sweep.local import run_locally
from fakd.sweep.plan import make_plan
from fakd.sweep.search import axes_of
from fakd.sweep.spec import parse_spec

from .conftest import content

LAMBDA = "KD.FAKDChannel.LAMBDA"
SPEC = content(
    methods=["fakd"],
    seeds=[0, 1],
    search="optuna",
    samples=6,
    keys={LAMBDA: {"uniform": [0.0, 10.0]}, "KD.FAKDChannel.FORM": ["bound", "shift"]},
)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [((), ["SEED"]), (("AT", "PD"), ["KD.AT.WEIGHT", "SEED"]), (("DIST",), ["KD.DIST.TAU", "SEED"])],
)
def test_a_key_of_a_loss_varies_only_methods_with_that_loss(losses, expected):
    keys = {"KD.AT.WEIGHT": [1, 2], "KD.DIST.TAU": [1, 2], "KD.FAKDPixel.LAMBDA": [1, 2], "SEED": [0, 1]}
    assert list(axes_of(keys, losses)) == expected


def search_of(folder):
    folder.mkdir(exist_ok=True)
    (search,) = make_plan(parse_spec(SPEC), folder).searches
    return search


def finish(trial):
    """A result that is best at lambda 7."""
    trial.folder.mkdir(parents=True, exist_ok=True)
    result = {"metrics": {"mIoU": score(trial.values) + trial.seed}}
    (trial.folder / "result.json").write_text(json.dumps(result))


def score(values):
    return -abs(values[LAMBDA] - 7)


def test_values_of_a_list_stay_apart_and_those_of_a_range_fit_into_a_name(tmp_path):
    pytest.importorskip("optuna")
    given = SPEC | {"keys": {LAMBDA: {"uniform": [0.0, 10.0]}, "SOLVER.BASE_LR": [0.0123456, 0.0123459]}}
    (search,) = make_plan(parse_spec(given), tmp_path).searches
    values = [trial.values for trial in search.ask(6)]
    assert {each["SOLVER.BASE_LR"] for each in values} == {0.0123456, 0.0123459}
    assert all(float(f"{each[LAMBDA]:.4g}") == each[LAMBDA] for each in values)


def test_a_point_that_optuna_chooses_twice_is_trained_once_and_told_twice(tmp_path):
    pytest.importorskip("optuna")
    (search,) = make_plan(parse_spec(SPEC | {"keys": {LAMBDA: [6.0, 8.0]}}), tmp_path).searches
    asked = search.ask(6)
    assert len(asked) == len(set(asked)) == 4 and search.known() == asked  # of two points and two seeds
    for trial in asked:
        finish(trial)
    search.tell(lambda trial: False)
    assert search.ask(6) == []


def test_optuna_is_told_what_points_reached_and_they_are_known_after_a_kill(tmp_path):
    optuna = pytest.importorskip("optuna")
    search = search_of(tmp_path / "out")
    first = search.ask(4)
    assert [t.seed for t in first] == [0, 1] * 4 and first[0].values == first[1].values
    for trial in first[:4]:
        finish(trial)
    search.tell(lambda trial: trial in first[4:6])  # two points are done, one has failed, one was interrupted

    search = search_of(tmp_path / "out")
    assert search.known() == first
    assert search.ask(1) == first[6:]
    while asked := search.ask(2):
        for trial in asked:
            finish(trial)
        search.tell(lambda trial: False)
    journal = optuna.storages.journal.JournalFileBackend(str(tmp_path / "out" / "optuna.journal"))
    told = optuna.load_study(study_name="fakd", storage=optuna.storages.JournalStorage(journal)).trials
    assert [each.state.name for each in told] == ["COMPLETE", "COMPLETE", "FAIL", *["COMPLETE"] * 3]
    assert len({each.params[LAMBDA] for each in told}) == 6
    for each in told[:2] + told[3:]:
        assert each.value == pytest.approx(score(each.params) + 0.5, abs=0.001)  # the mean over the seeds


def test_without_optuna_the_sweep_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match="pip install 'fakd"):
        search_of(tmp_path / "out")


def test_a_sweep_asks_until_it_has_its_points(tmp_path, capsys):
    pytest.importorskip("optuna")
    rates = {"SOLVER.BASE_LR": {"loguniform": [1e-4, 1e-2]}}
    given = content(methods=["student"], search="optuna", samples=3, keys=rates, stop={"iterations": 1})
    assert run_locally(parse_spec(given), tmp_path) == 0
    results = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/seed0/result.json")}
    assert len(results) == 3
    assert "3 of 3 trials are done" in capsys.readouterr().out
    assert run_locally(parse_spec(given), tmp_path, resume=True) == 0
    assert results == {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/seed0/result.json")}
