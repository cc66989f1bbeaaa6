"""Nothing that a file says of itself makes it run: only what the user allows runs code."""

import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from fakd.config import load_config
from fakd.deploy.export import write
from fakd.deploy.exported import load_exported
from fakd.deploy.formats import FORMATS
from fakd.deploy.metadata import build_metadata
from fakd.deploy.network import DeployedNetwork
from fakd.deploy.source import read_source
from fakd.modeling import Segmentor
from fakd.modeling.build import build_teacher
from fakd.modeling.detectron2_teacher import load_detectron2_teacher
from fakd.predict import Predictor
from fakd.report.report import write_report

TINY = {
    "MODEL": {
        "DEVICE": "cpu",
        "BACKBONE": {"WIDTH": 0.0625, "PRETRAINED": "none"},
        "SEM_SEG_HEAD": {"NUM_CLASSES": 12, "CHANNELS": 8},
        "AUXILIARY_HEAD": {"CHANNELS": 8},
    }
}


class Mark:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "code has run"


@pytest.fixture
def folder(tmp_path):
    """A run's folder as it came from elsewhere."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(TINY))
    network = Segmentor(load_config(str(folder / "config.yaml")))
    torch.save({"model": network.state_dict()}, folder / "model_final.pth")
    return folder


def add_plugin(folder, marker):
    plugin = folder / f"plugin_{folder.parent.name.replace('-', '_')}.py"
    plugin.write_text(f"import pathlib; pathlib.Path({str(marker)!r}).touch()\n")
    (folder / "config.yaml").write_text(yaml.safe_dump(TINY | {"PLUGINS": [str(plugin)]}))


def add_pickle(folder, marker):
    content = torch.load(folder / "model_final.pth")
    torch.save(content | {"author": Mark(marker)}, folder / "model_final.pth")
    (folder / "config.yaml").write_text(yaml.safe_dump(TINY | {"CHECKPOINT": {"ALLOW_PICKLE": True}}))


@pytest.mark.parametrize(
    ("spoil", "flag", "error"),
    [
        (add_plugin, "allow_plugins", r"config\.yaml names PLUGINS .*--allow-plugins"),
        (add_pickle, "allow_pickle", r"model_final\.pth.*can run any code|run any code"),
    ],
)
def test_a_run_s_folder_runs_code_only_where_it_is_allowed(folder, marker, spoil, flag, error):
    spoil(folder, marker)
    with pytest.raises(ValueError, match=error):
        Predictor(folder, device="cpu")
    assert not marker.exists()
    Predictor(folder, device="cpu", **{flag: True})
    assert marker.exists()  # the file was dangerous indeed


def test_a_report_runs_no_code_that_runs_bring(folder, marker, tmp_path):
    add_plugin(folder, marker)
    metrics = {"mIoU": 40.0, "mAcc": 50.0, "aAcc": 60.0}
    result = {"dataset": "toyscenes_val", "metrics_by_dataset": {"toyscenes_val": metrics}}
    (folder / "result.json").write_text(json.dumps(result))
    write_report([folder], tmp_path / "out", sections=["examples"], num_images=1)
    assert not marker.exists()
    assert "give --allow-plugins" in (tmp_path / "out" / "report.md").read_text()
    write_report([folder], tmp_path / "out", sections=["examples"], num_images=1, allow_plugins=True)
    assert marker.exists()


def test_what_the_user_names_is_imported(folder, marker):
    add_plugin(folder, marker)
    plugin = yaml.safe_load((folder / "config.yaml").read_text())["PLUGINS"][0]
    read_source(folder, opts=["PLUGINS", plugin])
    assert marker.exists()


def test_a_file_of_torch_export_is_opened_only_where_it_is_allowed(folder, marker, tmp_path):
    cfg = load_config(str(folder / "config.yaml"))
    network = Segmentor(cfg).eval()
    path, deployed = tmp_path / "x.pt2", DeployedNetwork(network)
    metadata = build_metadata(cfg, network, (32, 48), True, "float32")
    write(FORMATS["torch-export"].write(deployed, metadata), str(path.with_suffix("")))
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    inputs = next(name for name in content if "sample_inputs" in name)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, pickle.dumps(Mark(marker)) if name == inputs else data)
    with pytest.raises(ValueError, match=r"x\.pt2' is of torch\.export.*--allow-pickle"):
        load_exported(path)
    with pytest.raises(ValueError, match=r"x\.pt2' is of torch\.export.*--allow-pickle"):
        Predictor(path)
    assert not marker.exists()
    with pytest.raises(ValueError, match="PyTorch cannot open"):
        load_exported(path, allow_pickle=True)
    assert marker.exists()


def teacher_of(folder):
    opts = [
        "KD.TEACHER.CONFIG_FILE",
        folder / "config.yaml",
        "KD.TEACHER.WEIGHTS",
        folder / "model_final.pth",
    ]
    return load_config("", [*map(str, opts), "MODEL.DEVICE", "cpu"])


@pytest.mark.parametrize(
    ("spoil", "error"),
    [(add_plugin, r"config\.yaml names PLUGINS .* on the command line\.$"), (add_pickle, "run any code")],
)
def test_a_teacher_runs_no_code(folder, marker, spoil, error):
    spoil(folder, marker)
    with pytest.raises(ValueError, match=error):
        build_teacher(teacher_of(folder))
    assert not marker.exists()


def test_a_teacher_s_plugins_may_be_named_by_the_student(folder, marker):
    add_plugin(folder, marker)
    plugin = yaml.safe_load((folder / "config.yaml").read_text())["PLUGINS"]
    cfg = teacher_of(folder)
    cfg.PLUGINS = tuple(plugin)
    build_teacher(cfg)
    assert marker.exists()


def test_a_config_of_detectron2_names_no_python_objects(tmp_path, marker):
    path = tmp_path / "theirs.yaml"
    path.write_text(f"OUTPUT_DIR: !!python/object/apply:pathlib.Path.touch [{marker}]\n")
    with pytest.raises(yaml.YAMLError):
        load_detectron2_teacher(str(path), "none.pth", "cpu")
    path.write_text(f"OUTPUT_DIR: !!python/object/apply:os.mknod ['{marker}']\n")
    with pytest.raises(yaml.YAMLError):
        load_detectron2_teacher(str(path), "none.pth", "cpu")
    assert not marker.exists()


@pytest.fixture
def recipe(tmp_path, marker):
    """A recipe that names a plugin and wants pickles read, as it came from elsewhere."""
    plugin = tmp_path / f"plugin_{tmp_path.name.replace('-', '_')}.py"
    plugin.write_text(f"import pathlib; pathlib.Path({str(marker)!r}).touch()\n")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"PLUGINS": [str(plugin)], "KD": {"LOSSES": ["PD"]}}))
    return path


@pytest.mark.parametrize("command", ["train_net", "train_net by the config", "study", "tune"])
def test_a_recipe_runs_no_code_that_nobody_named(tool, tmp_path, marker, recipe, command):
    config = tmp_path / "student.yaml"
    by_config = {"KD": {"RECIPE": str(recipe)}} if "config" in command else {}
    config.write_text(yaml.safe_dump(TINY | by_config))
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(
        yaml.safe_dump({"base": str(config), "teacher": {"config": str(config)}, "methods": [str(recipe)]})
    )
    output = tmp_path / "output"
    arguments = {
        "train_net": ["--config-file", config, "--recipe", recipe, "OUTPUT_DIR", output],
        "train_net by the config": ["--config-file", config, "OUTPUT_DIR", output],
        "study": [
            "--teacher-config",
            config,
            "--student-config",
            config,
            "--methods",
            recipe,
            "--output",
            output,
        ],
        "tune": ["--spec", sweep, "--local", "--output", output],
    }[command]
    code, said = tool(command.split()[0], *arguments)
    assert code == 1 and "names PLUGINS" in said and "--allow-plugins" in said and str(recipe) in said
    assert not marker.exists() and not output.exists()


def test_a_recipe_s_plugin_is_imported_where_it_is_allowed(tool, tmp_path, marker, recipe):
    config = tmp_path / "student.yaml"
    config.write_text(yaml.safe_dump(TINY))
    arguments = ["--config-file", config, "--recipe", recipe, "--eval-only", "MODEL.WEIGHTS", "nowhere.pth"]
    code, said = tool("train_net", "--allow-plugins", *arguments)
    assert marker.exists() and code == 1 and "nowhere.pth" in said


def test_a_recipe_allows_no_pickles(tool, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"CHECKPOINT": {"ALLOW_PICKLE": True}, "KD": {"LOSSES": ["PD"]}}))
    code, said = tool("train_net", "--recipe", recipe, "OUTPUT_DIR", tmp_path / "output")
    assert code == 1 and "sets CHECKPOINT.ALLOW_PICKLE" in said
