"""A method that a config names is the one that is trained."""

import os

import pytest

from fakd.config import load_config

DISTILLS, ALONE = ("MODEL.META_ARCHITECTURE", "Distiller"), ("MODEL.META_ARCHITECTURE", "Segmentor")
CWD, NONE = ("KD.LOSSES", "('CWD',)"), ("KD.LOSSES", "()")


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize("where", ["config file", "command line", "recipe by path"])
def test_losses_imply_the_distiller(write, where):
    text = "KD: {LOSSES: [CWD]}\n"
    cfg = {
        "config file": lambda: load_config(write("run.yaml", text)),
        "command line": lambda: load_config(opts=CWD),
        "recipe by path": lambda: load_config(recipe=write("method.yaml", text)),
    }[where]()
    assert cfg.MODEL.META_ARCHITECTURE == "Distiller"
    assert load_config(opts=[*CWD, *DISTILLS]).MODEL.META_ARCHITECTURE == "Distiller"


def test_a_recipe_without_its_losses_is_the_student_alone():
    assert load_config(opts=NONE, recipe="cwd").MODEL.META_ARCHITECTURE == "Segmentor"


@pytest.mark.parametrize("source", ["opts", "recipe", "file"])
def test_losses_that_would_not_be_trained_are_an_error(write, source):
    with pytest.raises(ValueError, match=r"KD.LOSSES names CWD, but .*'Segmentor'.*losses imply"):
        if source == "opts":
            load_config(opts=[*CWD, *ALONE])
        elif source == "recipe":
            load_config(opts=CWD, recipe="student")
        else:
            load_config(write("run.yaml", "MODEL: {META_ARCHITECTURE: Segmentor}\nKD: {RECIPE: cwd}"))


def test_a_distiller_without_losses_is_an_error():
    with pytest.raises(ValueError, match=r"'Distiller', but KD.LOSSES names no loss.*KD.RECIPE"):
        load_config(opts=DISTILLS)


def test_two_plugins_of_one_name_are_both_imported(write, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    files = [
        write(name, f"import os\nos.environ['SEEN'] += '{letter}'\n")
        for name, letter in (("mine.py", "a"), ("other/mine.py", "b"))
    ]
    monkeypatch.setenv("SEEN", "")
    load_config(opts=["PLUGINS", str(tuple(files))])
    load_config(opts=["PLUGINS", str(tuple(files))])
    assert os.environ["SEEN"] == "ab"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def", "SyntaxError"),
        ("import nothing_of_this_name", "No module named 'nothing_of_this_name'"),
        ("open('/nowhere')", "FileNotFoundError.*'/nowhere'"),
    ],
)
def test_a_plugin_that_raises_is_named(write, text, reason):
    plugin = write("broken.py", text)
    for _ in range(2):  # also the second time, when half a module could lie about
        with pytest.raises(ValueError, match=rf"PLUGINS: '{plugin}' cannot be imported: .*{reason}"):
            load_config(opts=["PLUGINS", plugin])
