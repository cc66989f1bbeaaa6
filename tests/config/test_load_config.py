"""Defaults, recipe, file and command line, in that order; what does not exist is named with what does."""

import sys

import pytest
import yaml
from detectron2.config import CfgNode

from fakd.config import load_config, load_teacher_config
from fakd.config.checks import value_of
from fakd.registry import DISTILL_LOSS_REGISTRY

PLUGIN = '''
from dataclasses import dataclass
from fakd.losses import DistillLoss, option
from fakd.registry import DISTILL_LOSS_REGISTRY


@DISTILL_LOSS_REGISTRY.register()
class {name}(DistillLoss):
    """A loss from elsewhere."""

    @dataclass
    class Config(DistillLoss.Config):
        lambda_: float = option(0.25, "something")
        sides: tuple = option((3, 5), "some numbers")
'''


@pytest.fixture
def write(tmp_path):
    """``write(name, text)``: the path of a new file with that text."""

    def write(name, text):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


@pytest.fixture
def plugin(write, tmp_path, monkeypatch):
    """``plugin(name)``: a module that registers a loss of that name, which is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names, modules = [], set(sys.modules)

    def plugin(name):
        names.append(name)
        return write(f"plugin_{name.lower()}.py", PLUGIN.format(name=name))

    yield plugin
    for name in names:
        DISTILL_LOSS_REGISTRY._obj_map.pop(name, None)
    for module in set(sys.modules) - modules:
        if "plugin_" in module:
            del sys.modules[module]


def test_each_source_wins_over_the_ones_before(write):
    recipe = write("method.yaml", "KD: {LOSSES: [CWD], CWD: {TAU: 2.0, WEIGHT: 2.0}}\nSEED: 2")
    config = write(
        "run.yaml", f"KD: {{RECIPE: {recipe}, CWD: {{TAU: 3.0}}}}\nSOLVER: {{MAX_ITER: 3}}\nSEED: 3"
    )
    default = load_config()
    cfg = load_config(config, ["SEED", "4"])
    assert (cfg.SEED, cfg.KD.CWD.TAU, cfg.KD.CWD.WEIGHT, cfg.SOLVER.MAX_ITER) == (4, 3.0, 2.0, 3)
    assert tuple(cfg.KD.LOSSES) == ("CWD",)
    assert cfg.KD.PD == default.KD.PD and cfg.SOLVER.BASE_LR == default.SOLVER.BASE_LR
    assert default.KD.CWD.TAU not in (2.0, 3.0) and tuple(default.KD.LOSSES) == ()


def test_the_recipe_is_chosen_on_the_command_line_over_the_file(write):
    config = write("run.yaml", "KD: {RECIPE: pd}")
    assert tuple(load_config(config).KD.LOSSES) == ("PD",)
    cfg = load_config(config, ["KD.RECIPE", "cwd"])
    assert tuple(cfg.KD.LOSSES) == ("CWD",) and cfg.KD.RECIPE == "cwd"


def test_a_recipe_given_beside_the_file_replaces_the_file_s_method(write):
    config = write(
        "run.yaml",
        "MODEL: {META_ARCHITECTURE: Distiller}\nKD: {RECIPE: pd, LOSSES: [PD], TEACHER: {WEIGHTS: t.pth}}",
    )
    cfg = load_config(config, recipe="cwd")
    assert tuple(cfg.KD.LOSSES) == ("CWD",) and cfg.MODEL.META_ARCHITECTURE == "Distiller"
    assert cfg.KD.TEACHER.WEIGHTS == "t.pth" and cfg.KD.RECIPE == "cwd"
    alone = load_config(config, recipe="student")
    assert tuple(alone.KD.LOSSES) == () and alone.MODEL.META_ARCHITECTURE == "Segmentor"


def test_base_files_are_relative_to_the_file(write):
    write("base.yaml", "SEED: 5\nSOLVER: {MAX_ITER: 7}")
    cfg = load_config(write("run.yaml", "_BASE_: base.yaml\nSEED: 6"))
    assert (cfg.SEED, cfg.SOLVER.MAX_ITER) == (6, 7)


@pytest.mark.parametrize(
    "wrong, right",
    [
        ("SOLVER.MAX_ITERS", "SOLVER.MAX_ITER"),
        ("KD.CWD.TUA", "KD.CWD.TAU"),
        ("KD.FAKDChanel.LAMBDA", "KD.FAKDChannel.LAMBDA"),
    ],
)
def test_an_unknown_key_is_named_with_its_place_and_the_nearest(wrong, right, write):
    *parents, leaf = wrong.split(".")
    text = (
        "".join("  " * i + name + ":\n" for i, name in enumerate(parents))
        + "  " * len(parents)
        + leaf
        + ": 1"
    )
    file, recipe = write("run.yaml", text), write("method.yaml", text)
    calls = {
        "the command line": lambda: load_config(opts=[wrong, "1"]),
        file: lambda: load_config(file),
        recipe: lambda: load_config(recipe=recipe),
    }
    for place, call in calls.items():
        with pytest.raises(KeyError) as error:
            call()
        message = str(error.value)
        assert place in message and wrong in message and right in message


def test_a_value_where_a_node_belongs_and_a_node_where_a_value_belongs(write):
    for text in ("SOLVER: 3", "SEED: {A: 1}"):
        with pytest.raises(KeyError, match="there is no config key"):
            load_config(write("run.yaml", text))


def test_a_value_of_another_type_names_its_key():
    with pytest.raises(ValueError, match="SEED"):
        load_config(opts=["SEED", "often"])


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml does not exist"):
        load_config(str(tmp_path / "nowhere.yaml"))
    with pytest.raises(FileNotFoundError, match="no recipe 'cdw'.*cwd.*fakd"):
        load_config(recipe="cdw")
    with pytest.raises(FileNotFoundError, match=r"PLUGINS.*nowhere\.py"):
        load_config(opts=["PLUGINS", "('nowhere.py',)"])


def test_options_come_in_pairs():
    with pytest.raises(ValueError, match="pairs"):
        load_config(opts=["SEED"])


@pytest.mark.parametrize("by", ["name", "path"])
@pytest.mark.parametrize("place", ["command line", "file", "recipe"])
def test_a_plugin_s_loss_has_its_node(place, by, plugin, write):
    name = f"Elsewhere{place.title().replace(' ', '')}{by.title()}"
    path = plugin(name)
    module = path if by == "path" else f"plugin_{name.lower()}"
    text = f"PLUGINS: ['{module}']\nKD: {{LOSSES: [{name}], {name}: {{LAMBDA: 0.5}}}}"
    if place == "command line":
        cfg = load_config(opts=["PLUGINS", f"('{module}',)", f"KD.{name}.LAMBDA", "0.5"])
    elif place == "file":
        cfg = load_config(write("run.yaml", text))
    else:
        cfg = load_config(recipe=write("method.yaml", text))
    assert cfg.KD[name] == CfgNode({"WEIGHT": 1.0, "LAMBDA": 0.5, "SIDES": (3, 5)})
    assert name in DISTILL_LOSS_REGISTRY
    # A second config of the same process finds it registered.
    assert name in load_config().KD


def test_plugins_of_recipe_file_and_command_line_are_all_kept(plugin, write, tmp_path):
    """A run's own config.yaml must find again what each of them registered."""
    paths = {place: plugin(f"Kept{place}") for place in ("Recipe", "File", "Line")}
    recipe = write("method.yaml", f"PLUGINS: ['{paths['Recipe']}']\nKD: {{LOSSES: [KeptRecipe]}}")
    config = write("run.yaml", f"PLUGINS: ['{paths['File']}']")
    cfg = load_config(config, ["PLUGINS", paths["Line"]], recipe=recipe)
    assert cfg.PLUGINS == tuple(paths.values())
    cfg.KD.RECIPE = ""
    assert load_config(write("config.yaml", cfg.dump())).PLUGINS == tuple(paths.values())


def test_the_result_is_not_frozen_and_stands_alone():
    first, second = load_config(), load_config()
    first.KD.CWD.TAU = 99.0
    first.KD.LOSSES = ("CWD",)
    assert second.KD.CWD.TAU != 99.0 and load_config().KD.CWD.TAU != 99.0


def test_whole_numbers_and_single_words_fit_their_keys(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("KD: {LOSSES: CWD, CWD: {TAU: 2}}\n")
    cfg = load_config(str(file))
    assert cfg.KD.LOSSES == ("CWD",) and type(cfg.KD.CWD.TAU) is float
    cfg = load_config(opts=["KD.LOSSES", "PD", "KD.PD.TAU", "4", "DATASETS.TRAIN", "camvid_train"])
    assert cfg.KD.LOSSES == ("PD",) and cfg.KD.PD.TAU == 4.0 and cfg.DATASETS.TRAIN == ("camvid_train",)


def test_other_types_are_refused():
    with pytest.raises(ValueError, match="SOLVER.MAX_ITER"):
        load_config(opts=["SOLVER.MAX_ITER", "1.5"])


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"MODEL: {A: [\n", "mine.yaml: cannot be read as yaml.*line 2"),
        (b"\xff\xfe\x00", "mine.yaml: cannot be read as yaml"),
        (b"", "mine.yaml does not hold keys"),
        (b"- a\n", "mine.yaml does not hold keys"),
        (b"_BASE_: nothing.yaml\n", "mine.yaml: its _BASE_ '.*nothing.yaml' does not exist"),
    ],
)
def test_a_file_that_is_no_config_is_named(tmp_path, content, error):
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=f"(?s){error}"):
        load_config(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    "network, mean, std",
    [
        ("tf_efficientnet_lite2", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
        ("mobilenetv2_100", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    ],
)
def test_weights_of_the_registry_bring_their_normalisation(network, mean, std, caplog):
    opts = ["MODEL.BACKBONE.PRETRAINED", "registry", "MODEL.BACKBONE.TIMM_NAME", network]
    cfg = load_config("", opts)
    assert (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD) == (mean, std)
    cfg = load_config("", [*opts, "INPUT.FORMAT", "BGR"])
    assert (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD) == (mean[::-1], std[::-1])
    assert [record.message for record in caplog.records if "trained on RGB" in record.message]


def test_a_normalisation_that_is_given_wins_over_the_registrys_with_a_warning(write, caplog):
    model = (
        "{BACKBONE: {TIMM_NAME: tf_efficientnet_lite0, PRETRAINED: registry}, PIXEL_MEAN: [1.0, 2.0, 3.0]}"
    )
    cfg = load_config(write("own.yaml", f"MODEL: {model}"))
    assert tuple(cfg.MODEL.PIXEL_MEAN) == (1.0, 2.0, 3.0)
    assert tuple(cfg.MODEL.PIXEL_STD) == (127.5, 127.5, 127.5)
    (warning,) = [record.message for record in caplog.records]
    assert "MODEL.PIXEL_MEAN is (1.0, 2.0, 3.0)" in warning and "(127.5, 127.5, 127.5)" in warning
    # What a run wrote down of itself is no contradiction.
    caplog.clear()
    again = load_config(
        write(
            "run.yaml",
            load_config(
                "",
                [
                    "MODEL.BACKBONE.PRETRAINED",
                    "registry",
                    "MODEL.BACKBONE.TIMM_NAME",
                    "tf_efficientnet_lite0",
                ],
            ).dump(),
        )
    )
    assert tuple(again.MODEL.PIXEL_MEAN) == (127.5, 127.5, 127.5) and not caplog.records


def test_a_network_without_weights_in_the_registry_is_told_before_anything_is_built():
    with pytest.raises(ValueError, match="PRETRAINED: .*'resnet18'.*mobilenetv2_100"):
        load_config("", ["MODEL.BACKBONE.PRETRAINED", "registry"])


@pytest.mark.parametrize(
    ("opts", "number"),
    [
        (["DATASETS.TRAIN", "camvid_train"], 11),
        (["DATASETS.TRAIN", "camvid_train", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "5"], 5),
        (["DATASETS.TRAIN", "nowhere_train"], 12),
    ],
)
def test_the_number_of_classes_follows_from_the_data(opts, number):
    assert load_config(opts=opts).MODEL.SEM_SEG_HEAD.NUM_CLASSES == number


@pytest.mark.parametrize(
    "name", ["OUTPUT_DIR", "MODEL.WEIGHTS", "KD.TEACHER.CONFIG_FILE", "KD.TEACHER.CACHE"]
)
def test_a_path_from_home_is_meant_as_a_shell_means_it(name, write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    *parents, leaf = name.split(".")
    content = {leaf: "~/there"}
    for parent in reversed(parents):
        content = {parent: content}
    for cfg in (load_config(write("own.yaml", yaml.safe_dump(content))), load_config(opts=[name, "~/there"])):
        assert value_of(cfg, name) == str(tmp_path / "there")


def test_a_teacher_s_run_from_home_names_its_files_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    teacher = load_config(opts=["KD.TEACHER.RUN", "~/run"]).KD.TEACHER
    assert teacher.CONFIG_FILE == str(tmp_path / "run" / "config.yaml")
    assert teacher.WEIGHTS == str(tmp_path / "run" / "model_final.pth")


def test_a_teacher_whose_classes_have_another_order_is_refused(tmp_path):
    names = load_config().DATASETS.CLASSES
    (tmp_path / "config.yaml").write_text(load_config().dump())
    opts = ["KD.TEACHER.CONFIG_FILE", str(tmp_path / "config.yaml")]
    assert load_teacher_config(load_config(opts=opts)).DATASETS.CLASSES == names
    (tmp_path / "config.yaml").write_text(load_config(opts=["DATASETS.CLASSES", str(names[::-1])]).dump())
    with pytest.raises(
        ValueError, match=f"config.yaml' has .*in another order: class 0 is '{names[-1]}' there"
    ):
        load_teacher_config(load_config(opts=opts))


def test_a_recipe_may_name_a_protocol(tmp_path):
    (tmp_path / "mine.yaml").write_text("PROTOCOL: cirkd")
    cfg = load_config(recipe=str(tmp_path / "mine.yaml"))
    assert (
        cfg.SOLVER.BASE_LR
        == load_config(opts=["PROTOCOL", "cirkd"]).SOLVER.BASE_LR
        != load_config().SOLVER.BASE_LR
    )


def test_options_that_are_not_in_pairs_are_told_whatever_they_are():
    with pytest.raises(ValueError, match="got 3 words: SEED 1 OUTPUT_DIR"):
        load_config(opts=["SEED", 1, "OUTPUT_DIR"])
