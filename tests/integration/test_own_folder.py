"""A run without OUTPUT_DIR has a folder of its own, which a resume finds again."""

import shutil
from pathlib import Path

import pytest

from fakd.config import load_config
from fakd.engine.run_folder import numbered_folder

from .conftest import CONFIG

SHORT = ["SOLVER.MAX_ITER", "2", "SOLVER.CHECKPOINT_PERIOD", "1"]


def test_the_name_says_config_and_method(tmp_path):
    assert load_config("configs/toyscenes/student.yaml").OUTPUT_DIR == "output/toyscenes/student"
    assert load_config("toyscenes/student.yaml", recipe="student").OUTPUT_DIR == "output/toyscenes/student"
    assert load_config("toyscenes/student.yaml", [], "fakd").OUTPUT_DIR == "output/toyscenes/student_fakd"
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("KD: {LOSSES: [PD]}\n")
    assert load_config(CONFIG, ["KD.RECIPE", str(recipe)]).OUTPUT_DIR == "output/integration/tiny_mine"
    named = load_config("toyscenes/student.yaml", ["OUTPUT_DIR", "elsewhere"])
    assert named.OUTPUT_DIR == "elsewhere"
    assert load_config().OUTPUT_DIR == "./output"


def test_folders_are_counted(tmp_path):
    first = str(tmp_path / "a")
    assert numbered_folder(first, False) == numbered_folder(first, True) == first
    for folder in (first, f"{first}-2"):
        Path(folder).mkdir()
        assert numbered_folder(first, False) == folder, "it holds no run yet"
        Path(folder, "config.yaml").touch()
        assert numbered_folder(first, True) == folder
    assert numbered_folder(first, False) == f"{first}-3"


def test_the_command_never_takes_another_run_s_folder(tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ("train_net", "--config-file", CONFIG, *SHORT)
    runs = Path("output/integration")
    for name in ("tiny", "tiny-2"):
        code, told = tool(*command)
        assert code == 0 and f"OUTPUT_DIR is 'output/integration/{name}'." in told
    assert sorted(path.name for path in runs.iterdir()) == ["tiny", "tiny-2"]
    first = (runs / "tiny" / "result.json").stat().st_mtime_ns
    (runs / "tiny-2" / "result.json").unlink()  # as if it had been stopped
    code, told = tool(*command, "--resume")
    assert code == 0 and "tiny-2'" in told and (runs / "tiny-2" / "result.json").is_file()
    assert (runs / "tiny" / "result.json").stat().st_mtime_ns == first
    code, told = tool(*command, "--eval-only")
    assert code == 0 and "tiny-2'" in told
    shutil.rmtree(runs / "tiny-2")
    assert "tiny'" in tool(*command, "--eval-only")[1]


def test_several_machines_must_name_it(tool):
    command = ("train_net", "--config-file", CONFIG, "--num-machines", 2)
    code, told = tool(*command)
    assert code == 1 and "--dist-url" in told
    code, told = tool(*command, "--dist-url", "tcp://127.0.0.1:4000")
    assert code == 1 and "OUTPUT_DIR" in told


@pytest.mark.parametrize("place", ["command", "file"])
def test_a_named_folder_is_left_as_it_is(tool, tmp_path, place):
    config = tmp_path / "c.yaml"
    config.write_text(f"_BASE_: {CONFIG}\n" + (f"OUTPUT_DIR: {tmp_path}/x\n" if place == "file" else ""))
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "model_0000001.pth").touch()
    named = () if place == "file" else ("OUTPUT_DIR", tmp_path / "x")
    code, told = tool("train_net", "--config-file", config, *SHORT, *named)
    assert code == 1 and "already holds an unfinished run" in told
