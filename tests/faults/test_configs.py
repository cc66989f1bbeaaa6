"""A config, recipe, protocol or teacher that cannot be used is told in one line, with file and remedy."""

import os
import re
import shutil

import pytest
from detectron2.config import get_cfg
from detectron2.modeling import BACKBONE_REGISTRY

from fakd.config import load_config
from fakd.config.checks import _INSTEAD
from fakd.config.defaults import KEYS
from fakd.config.setup import flat_keys
from fakd.engine.check import check_config, check_place


@pytest.fixture
def write(tmp_path):
    """``write(name, text)``: the path of a new file with that text."""

    def write(name, text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def message_of(call, kinds=(ValueError, KeyError, FileNotFoundError)):
    with pytest.raises(kinds) as error:
        call()
    text = str(error.value.args[0])
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("_BASE_: mine.yaml", "its _BASE_ leads back to"),
        ("_BASE_: other.yaml", "its _BASE_ leads back to"),
        ("_BASE_: nowhere.yaml", "its _BASE_ '.*nowhere.yaml' does not exist"),
        ("_BASE_: 5", "_BASE_ is .5., but must be a path"),
        ("_BASE_: [{}]", "_BASE_ is .*, but must be a path"),
        ("_BASE_: .", "_BASE_ .* does not exist"),
        ("MODEL: [", "cannot be read as yaml"),
        ("MODEL: {A: &a [*a]}", "there is no config key MODEL.A"),
        ("!!python/object/apply:os.system [true]", "cannot be read as yaml"),
        ("just words", "does not hold keys"),
        ("5: 5", "there is no config key 5"),
        ("MODEL: 5", "there is no config key MODEL"),
        ("PLUGINS: 5", "PLUGINS is 5"),
        ("PLUGINS: {A: 1}", "there is no config key PLUGINS.A"),
        ("KD: 5", "there is no config key KD"),
        ("KD: {RECIPE: 5}", "KD.RECIPE is 5"),
        ("KD: {RECIPE: [fakd]}", r"KD.RECIPE is \['fakd'\]"),
        ("PROTOCOL: 5", "PROTOCOL is 5"),
        ("DATASETS: {TRAIN: 5}\nPROTOCOL: paper", "DATASETS.TRAIN is 5"),
        ("DATASETS: {CUSTOM: 5}", "DATASETS.CUSTOM is 5"),
        ("SOLVER: {MAX_ITER: 2020-01-01}", "SOLVER.MAX_ITER is .*2020"),
        ("SEED: {A: 1}", "there is no config key SEED.A"),
    ],
)
def test_a_file_that_is_no_config(write, text, told):
    write("other.yaml", "_BASE_: mine.yaml")
    file = write("mine.yaml", text)
    assert re.search(told, message := message_of(lambda: load_config(file))), message


def test_a_recipe_or_protocol_that_is_none(write, tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    folder = str(tmp_path / "folder.yaml")
    for word in ("cdw", "projects/FAKD", folder, str(tmp_path), "", "\0"):
        if word:
            assert "no recipe" in message_of(lambda word=word: load_config(recipe=word))
            assert "no protocol" in message_of(lambda word=word: load_config(opts=["PROTOCOL", word]))
    for text in ("5", "all: 5", "- all", "all: ["):
        file = write("protocol.yaml", text)
        assert file in message_of(lambda file=file: load_config(opts=["PROTOCOL", file]))
    file = write("protocol.yaml", "all: {SOLVER: {MAX_ITERS: 1}}")
    assert "SOLVER.MAX_ITER" in message_of(lambda: load_config(opts=["PROTOCOL", file]))
    recipe = write("method.yaml", "SOLVER: {MAX_ITER: 0}")
    assert f"recipe {recipe}: SOLVER.MAX_ITER is 0" in message_of(lambda: load_config(recipe=recipe))


@pytest.mark.parametrize("split", ["TRAIN", "TEST"])
def test_a_dataset_that_is_not_there_is_named_before_an_evaluation_too(split):
    cfg = load_config(opts=["MODEL.DEVICE", "cpu", f"DATASETS.{split}", "('toyscenes_vall',)"])
    for check in (check_place, check_config):
        assert f"DATASETS.{split}: there is no dataset 'toyscenes_vall'" in message_of(lambda c=check: c(cfg))


@pytest.mark.parametrize("key", sorted(set(flat_keys(get_cfg())) - set(KEYS)))
def test_a_key_of_detectron2_that_does_nothing_is_refused_where_it_is_changed(key, write):
    value = flat_keys(get_cfg())[key]
    other = {
        bool: lambda: not value,
        int: lambda: value + 1,
        float: lambda: value + 1.0,
        str: lambda: f"{value}x",
        list: lambda: [*value, 5],
        tuple: lambda: (*value, 5),
    }[type(value)]()
    assert load_config(opts=[key, value]).MODEL.META_ARCHITECTURE == "Segmentor"  # a run writes all keys down
    told = message_of(lambda: load_config(opts=[key, other]))
    assert f"the command line: {key} is a key of detectron2's that does nothing here" in told
    ours = [ours for start, ours in _INSTEAD.items() if key.startswith(start)]
    assert (ours[0] if ours else "leave it out") in told


def test_what_replaces_a_key_acts():
    for ours in _INSTEAD.values():
        first = ours.split()[0].strip(",:")
        assert first in KEYS, first


def test_a_network_from_elsewhere_may_read_any_key_of_its_own(monkeypatch):
    assert "build_resnet_backbone" in BACKBONE_REGISTRY
    opts = ["MODEL.BACKBONE.NAME", "build_resnet_backbone", "MODEL.RESNETS.DEPTH", 101]
    assert load_config(opts=opts).MODEL.RESNETS.DEPTH == 101
    assert "INPUT.MASK_FORMAT" in message_of(
        lambda: load_config(opts=[*opts, "INPUT.MASK_FORMAT", "bitmask"])
    )


DISTIL = ["MODEL.DEVICE", "cpu", "KD.LOSSES", "('CWD',)"]


def finished(folder):
    folder.mkdir()
    for name in ("config.yaml", "model_final.pth", "model_best.pth"):
        (folder / name).write_text("")
    return str(folder)


def test_a_run_is_all_that_is_said_of_a_teacher(tmp_path, write):
    run = finished(tmp_path / "teacher")
    cfg = load_config(opts=[*DISTIL, "KD.TEACHER.RUN", run])
    assert cfg.KD.TEACHER.CONFIG_FILE == f"{run}/config.yaml"
    assert cfg.KD.TEACHER.WEIGHTS == f"{run}/model_final.pth"
    check_config(cfg)
    again = load_config(write("config.yaml", cfg.dump()))
    assert again.KD.TEACHER == cfg.KD.TEACHER
    best = [*DISTIL, "KD.TEACHER.RUN", run, "KD.TEACHER.WEIGHTS", f"{run}/model_best.pth"]
    assert load_config(opts=best).KD.TEACHER.WEIGHTS.endswith("model_best.pth")
    shutil.rmtree(run)
    told = message_of(lambda: check_config(cfg))
    assert f"KD.TEACHER.RUN is '{run}', but no finished run lies there" in told and "--resume" in told
    check_place(cfg)  # the student is evaluated without its teacher


def test_what_a_stronger_source_says_of_the_teacher_wins(tmp_path, write):
    run = finished(tmp_path / "teacher")
    named = write("named.yaml", "KD: {LOSSES: [CWD], TEACHER: {CONFIG_FILE: a.yaml, WEIGHTS: a.pth}}")
    teacher = load_config(named, ["KD.TEACHER.RUN", run]).KD.TEACHER
    assert (teacher.CONFIG_FILE, teacher.WEIGHTS) == (f"{run}/config.yaml", f"{run}/model_final.pth")
    by_run = write("by_run.yaml", f"KD: {{LOSSES: [CWD], TEACHER: {{RUN: '{run}'}}}}")
    teacher = load_config(
        by_run, ["KD.TEACHER.CONFIG_FILE", "a.yaml", "KD.TEACHER.WEIGHTS", "a.pth"]
    ).KD.TEACHER
    assert (teacher.RUN, teacher.CONFIG_FILE, teacher.WEIGHTS) == ("", "a.yaml", "a.pth")


@pytest.mark.parametrize(("key", "value"), [("CONFIG_FILE", "a.yaml"), ("WEIGHTS", "a.pth")])
def test_a_run_and_another_teacher_contradict(tmp_path, key, value):
    opts = [*DISTIL, "KD.TEACHER.RUN", str(tmp_path), f"KD.TEACHER.{key}", value]
    told = message_of(lambda: load_config(opts=opts))
    assert f"KD.TEACHER.{key} is '{value}', which is not in that folder" in told


def test_plugins_are_looked_for_beside_the_file_that_names_them(write, tmp_path, monkeypatch):
    for folder in ("a", "b"):
        write(f"{folder}/own.py", f"import os\nos.environ['FOUND_{folder}'] = 'yes'")
        monkeypatch.delenv(f"FOUND_{folder}", raising=False)
    write("a/base.yaml", "PLUGINS: [own.py]")
    write("b/recipe.yaml", "PLUGINS: [own.py]")
    file = write("c/run.yaml", "_BASE_: ../a/base.yaml")
    cfg = load_config(file, recipe=str(tmp_path / "b/recipe.yaml"))
    assert cfg.PLUGINS == (str(tmp_path / "b/own.py"), str(tmp_path / "a/own.py"))
    assert os.environ["FOUND_a"] == os.environ["FOUND_b"] == "yes"


@pytest.mark.parametrize(
    ("opts", "told"),
    [
        (["DATASETS.TRAIN", "()"], "DATASETS.TRAIN is empty, but DATALOADER.UNLABELLED_SHARE is 0.5"),
        (["DATALOADER.UNLABELLED_SHARE", 1], "without KD.LOSSES nothing is learnt"),
        (
            ["DATALOADER.UNLABELLED_SHARE", 1, "KD.LOSSES", "('PD','DKD')"],
            "DKD reads labels, .*KD.PSEUDO_CONFIDENCE below 1 .*those that read none: .*PD",
        ),
        (["DATASETS.UNLABELLED", "('toyscenes_trian',)"], "DATASETS.UNLABELLED: there is no dataset"),
    ],
)
def test_pictures_without_labels_that_teach_nothing(opts, told):
    cfg = load_config("", ["DATASETS.UNLABELLED", "('toyscenes_train',)", *opts])
    assert re.search(told, message_of(lambda: check_config(cfg)))


def test_pictures_without_labels_for_losses_that_need_none_are_no_fault():
    opts = ["DATASETS.TRAIN", "()", "DATASETS.UNLABELLED", "('toyscenes_train',)"]
    for more in (["KD.LOSSES", "('PD',)"], ["KD.LOSSES", "('DKD',)", "KD.PSEUDO_CONFIDENCE", 0.9]):
        check_config(load_config("", [*opts, "DATALOADER.UNLABELLED_SHARE", 1.0, *more]))
