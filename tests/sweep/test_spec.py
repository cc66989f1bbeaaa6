"""What a sweep file may say; mistakes are found before anything runs."""

from pathlib import Path

import pytest
import yaml
from integration.conftest import CONFIG

from fakd.sweep.plan import make_plan
from fakd.sweep.spec import continues, parse_spec, read_spec

from .conftest import content

SWEEPS = Path(__file__).parents[2] / "projects" / "FAKD" / "sweeps"
LAMBDA, FORM = "KD.FAKDChannel.LAMBDA", "KD.FAKDChannel.FORM"
RATE, WEIGHT = "SOLVER.BASE_LR", "KD.CWD.WEIGHT"
TWO = {WEIGHT: [1.0, 2.0]}
TWO_OF_FAKD = {"keys": {LAMBDA: {"uniform": [0.5, 1.0]}}}
ASKED = {"search": "optuna", "samples": 2, "methods": ["fakd"]}


def plan(folder, **changes):
    return make_plan(parse_spec(content(**changes)), folder)


def test_axes_are_crossed_and_the_teacher_is_trained_once(tmp_path):
    pairs = {"a": {}, "b": {"opts": {"MODEL.SEM_SEG_HEAD.CHANNELS": 4}}}
    found = plan(
        tmp_path, pairs=pairs, methods=["student", "cwd", "fakd"], seeds=[0, 3], keys={LAMBDA: [0.5, 1]}
    )
    assert len(found.teachers) == 1
    names = {(t.pair, t.run, t.seed) for t in found.trials}
    runs = ("student", "cwd", "fakd-lambda=0.5", "fakd-lambda=1")
    assert names == {(p, r, s) for p in "ab" for r in runs for s in (0, 3)} and len(found.trials) == 16
    lambdas = {t.run: t.config().KD.FAKDChannel.LAMBDA for t in found.trials}
    assert lambdas["fakd-lambda=1"] == 1.0 and isinstance(lambdas["fakd-lambda=1"], float)
    assert {t.config().MODEL.SEM_SEG_HEAD.CHANNELS for t in found.trials if t.pair == "b"} == {4}
    teacher = found.teachers[0].folder
    assert found.trials[2].config().KD.TEACHER.WEIGHTS == str(teacher / "model_final.pth")


BACKBONE = {"KD.TEACHER.BACKBONE": "test_resnet", "KD.TEACHER.WEIGHTS": "timm"}


def test_a_backbone_without_classes_is_a_teacher_that_needs_no_run(tmp_path):
    given = {"teacher": {}, "methods": ["student", "normalized_feature"], "opts": BACKBONE}
    found = plan(tmp_path, **given)
    assert not found.teachers and [trial.teacher for trial in found.trials] == ["", ""]
    assert found.trials[1].config().KD.TEACHER.BACKBONE == "test_resnet"
    keys = {"KD.TEACHER.BACKBONE": ["test_resnet", "test_vit"]}
    more = plan(
        tmp_path,
        **given | {"methods": ["channel_feature"], "keys": keys, "opts": {"KD.TEACHER.WEIGHTS": "timm"}},
    )
    assert [trial.config().KD.TEACHER.BACKBONE for trial in more.trials] == ["test_resnet", "test_vit"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"methods": ["cwd"]}, "CWD reads the teacher's logits"),
        ({"opts": BACKBONE | {"KD.TEACHER.BACKBONE": "resnet1"}}, "resnet1"),
        ({"opts": BACKBONE | {"KD.TEACHER.WEIGHTS": ""}}, "KD.TEACHER.WEIGHTS is empty"),
        (
            {"opts": BACKBONE | {"KD.TEACHER.WEIGHTS": "none.pth"}},
            "KD.TEACHER.WEIGHTS 'none.pth': there is no file",
        ),
        ({"teacher": {"config": CONFIG}}, "two teachers"),
    ],
)
def test_a_backbone_that_cannot_teach_is_told_before_anything_runs(tmp_path, changes, told):
    given = {"teacher": {}, "methods": ["normalized_feature"], "opts": BACKBONE} | changes
    with pytest.raises(ValueError, match=f"The config of trial .* does not build: .*{told}"):
        plan(tmp_path, **given)


def test_a_random_search_draws_the_same_again(tmp_path):
    axes = {LAMBDA: {"loguniform": [0.1, 10]}, "SOLVER.BASE_LR": [0.1, 0.2]}
    found = [plan(tmp_path, methods=["fakd"], search="random", samples=3, keys=axes) for _ in range(2)]
    values = [[dict(t.values) for t in each.trials] for each in found]
    assert values[0] == values[1] and len(values[0]) == 3
    assert all(0.1 <= v[LAMBDA] <= 10 for v in values[0])


@pytest.mark.parametrize(("samples", "count"), [(4, 4), (9, 5)])
def test_a_random_search_over_lists_draws_different_points_until_there_are_no_more(tmp_path, samples, count):
    keys = {LAMBDA: [0.5, 1.0, 2.0, 4.0, 8.0]}
    found = plan(tmp_path, methods=["fakd"], search="random", samples=samples, keys=keys).trials
    assert len({trial.values[LAMBDA] for trial in found}) == len(found) == count


def test_numbers_that_yaml_takes_for_texts_are_numbers():
    """Such as 1e-3 without a point; a scheduler and the report compute with them."""
    text = f"{{{RATE}: [1e-3, 2E+0, 0.5], {WEIGHT}: {{loguniform: [1e-1, 1e1]}}, {FORM}: [bound, 1e999]}}"
    keys = parse_spec(content(search="random", samples=1, keys=yaml.safe_load(text))).keys
    assert keys == {RATE: [0.001, 2.0, 0.5], WEIGHT: {"loguniform": [0.1, 10.0]}, FORM: ["bound", "1e999"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sceduler": "asha"}, "no key 'sceduler'. Did you mean 'scheduler'"),
        ({"resources": {"gpu": 1}}, "resources: there is no key 'gpu'. Did you mean 'gpus'"),
        ({"scheduler": "hyperband"}, "scheduler is 'hyperband'; choose from none"),
        ({"methods": []}, "zero trials"),
        ({"seeds": []}, "zero trials"),
        ({"search": "random", "keys": {LAMBDA: [1]}}, "zero trials"),
        ({"seeds": ["0"]}, r"seeds\[0\] is '0', but must be a whole number"),
        ({"stop": {"hours": 1}}, "stop: there is no key 'hours'. Known: iterations, seconds"),
        ({"stop": {"iterations": 1, "seconds": 1}}, "stop takes either 'iterations' or 'seconds'"),
        ({"pack": 0}, "pack: is 0; choose off"),
        ({"pack": "auto", "scheduler": "asha"}, "packed students train in step"),
        ({"paper": {"": {"student": [1.0, 2.0]}}}, "paper is .*, but must be a text"),
        ({"paper": "FAKD"}, "one needs the other"),
        (
            {"paper": "FAKD", "pairs": {"a": {"paper": "ade20k/x"}}},
            "pair 'a': FAKD's paper has no row 'ade20k/x'",
        ),
        (
            {"keys": {LAMBDA: ["much"]}, "methods": ["fakd"]},
            "does not build: KD.FAKDChannel.LAMBDA is 'much', but must be",
        ),
        ({"keys": {"SOLVER.MAX_ITER": [2.5]}}, "does not build: SOLVER.MAX_ITER is 2.5, but must be"),
        (
            {"keys": {"KD.FAKDChannel.LAMBDDA": [1]}, "methods": ["fakd"]},
            "no config key KD.FAKDChannel.LAMBDDA",
        ),
        ({"keys": {LAMBDA: [1.0, 1]}, "methods": ["fakd"]}, "have the same config"),
        ({"keys": {"MODEL.SEM_SEG_HEAD.NAME": ["NoHead"]}}, "does not build: .*NoHead"),
        ({"opts": {"SOLVER.MIN_LR": 99.0}}, "does not build: SOLVER.MIN_LR is 99.0, which is above"),
        (
            {"opts": {"DATASETS.TRAIN": ["nowhere"]}},
            "does not build: DATASETS.TRAIN: there is no dataset .nowhere.",
        ),
        (
            {"methods": ["skds"], "opts": {"KD.SKDSHolistic.WIDTHS": [64, 128, 256, 512]}},
            "does not build: SKDSHolistic: the student's logits are .* fewer widths",
        ),
        ({"teacher": {"config": CONFIG, "weights": "y"}, "methods": ["cwd"]}, "no teacher's weights"),
        ({"methods": ["nonsense"]}, "no recipe 'nonsense'"),
        (
            {"opts": {"DATASETS.TEST": "()"}, "methods": ["student"]},
            "'student seed 0' has no test set: name one in DATASETS.TEST",
        ),
        (
            {"teacher": {"config": CONFIG, "opts": {"DATASETS.TEST": "()"}}},
            "'teacher.*' has no test set: name one in DATASETS.TEST",
        ),
        ({"opts": {"SOLVER.REFERENCE_WORLD_SIZE": 1}}, "has SOLVER.REFERENCE_WORLD_SIZE, .* Set it to 0"),
        ({"teacher": {}}, "need a teacher"),
        ({"metric": "miou"}, "metric is 'miou'; choose from mIoU"),
        (
            {"search": "optuna", "samples": 2, "keys": {LAMBDA: {"uniform": [2, 1]}}, "methods": ["fakd"]},
            "low, high",
        ),
        (ASKED | {"keys": {LAMBDA: [1]}, "scheduler": "asha"}, "whole runs"),
        ({"scheduler": "asha", "opts": {"TEST.EVAL_PERIOD": 4}}, "set TEST.EVAL_PERIOD below"),
        ({"scheduler": "pbt"}, "pbt needs 'keys'"),
        ({"scheduler": "pbt", "keys": {"KD.CWD.TAU": [1.0, 2.0]}}, "cannot change KD.CWD.TAU within a run"),
        ({"scheduler": "pbt", "keys": {"KD.CWD.WEIGHT": [1.0]}}, "two points"),
        ({"scheduler": "pbt", "keys": {RATE: [0.1, "no"]}}, f"keys: {RATE} is 'no'; .* needs rates above 0"),
        (
            {"scheduler": "pbt", "search": "random", "samples": 2, "keys": {RATE: {"uniform": [0, 1]}}},
            f"keys: {RATE} is 0.0; .* needs rates above 0",
        ),
        (
            {"scheduler": "pbt", "keys": {"KD.CWD.WEIGHT": [1.0, 2.0]}, "concurrency": 1},
            "wait for each other",
        ),
        (
            {
                "scheduler": "pbt",
                "keys": TWO,
                "opts": {"TEST.EVAL_PERIOD": 2, "SOLVER.CHECKPOINT_PERIOD": 3},
            },
            "set SOLVER.CHECKPOINT_PERIOD to",
        ),
    ],
)
def test_mistakes_are_refused(tmp_path, changes, message):
    with pytest.raises((ValueError, KeyError, FileNotFoundError), match=message):
        plan(tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_only_what_trains_makes_another_sweep(monkeypatch):
    first = parse_spec(content()).content()
    assert continues(first, parse_spec(content(concurrency=1, retries=0, title="x")).content())
    pairs = {"": {"student": content()["base"], "paper": "ade20k/pspnet_r18"}}
    monkeypatch.chdir(SWEEPS.parents[2])
    assert continues(first, parse_spec(content(paper="FAKD", pairs=pairs)).content())
    assert not continues(first, parse_spec(content(opts={"SOLVER.BASE_LR": 0.5})).content())


def test_methods_and_seeds_may_be_added_to_a_grid_and_to_no_search():
    first, more = ({"methods": ["fakd"], "seeds": [0]}, {"methods": ["fakd", "pd"], "seeds": [1, 0]})
    grid, larger = (parse_spec(content(**each)).content() for each in (first, more))
    assert continues(grid, larger) and not continues(larger, grid)
    asked, wider = (
        parse_spec(content(**{**ASKED, **TWO_OF_FAKD, **each})).content() for each in (first, more)
    )
    assert continues(asked, asked) and not continues(asked, wider)


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_sweeps_of_the_paper_are_read(path, monkeypatch):
    monkeypatch.chdir(SWEEPS.parents[2])
    spec = read_spec(path)
    assert spec.seeds in ((0, 1, 2, 3, 4), (0, 1, 2), (0,))
    assert all(Path(pair.student).is_file() for pair in spec.pairs.values())
    assert bool(spec.paper) is any(pair.paper for pair in spec.pairs.values())


def test_a_sweep_of_the_paper_builds(tmp_path, monkeypatch):
    monkeypatch.chdir(SWEEPS.parents[2])
    found = make_plan(read_spec(SWEEPS / "toyscenes_table5.yaml"), tmp_path)
    assert len(found.trials) == 30 and len(found.teachers) == 1


@pytest.mark.parametrize(
    ("name", "students", "teachers"),
    [("camvid_label_share", 75, 5), ("camvid_label_share_full_teacher", 36, 1)],
)
def test_the_sweeps_of_few_labels_build(name, students, teachers, tmp_path, monkeypatch):
    monkeypatch.chdir(SWEEPS.parents[2])
    spec = read_spec(f"projects/FewLabels/sweeps/{name}.yaml")
    spec.check_recipes()
    found = make_plan(spec, tmp_path)
    assert len(found.trials) == students and len(found.teachers) == teachers
    for trial in found.trials:
        cfg = trial.config()
        alone = trial.method == "student"
        assert cfg.DATASETS.LABEL_SHARE == int(trial.pair.removeprefix("share")) / 100
        assert cfg.DATASETS.UNLABELLED == (() if alone else ("camvid_train",)) and alone != bool(
            cfg.KD.LOSSES
        )
    shares = {trial.config().DATASETS.LABEL_SHARE for trial in found.teachers}
    assert shares == ({1.0} if teachers == 1 else {0.05, 0.1, 0.25, 0.5, 1.0})
