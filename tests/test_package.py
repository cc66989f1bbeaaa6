"""The wheel alone: the command ``fakd``, the configs and the Python interface, away from the repository."""

import sys

import pytest
from wheel_install import Wheel

from fakd.commands import COMMANDS

SHORT = "SOLVER.MAX_ITER 2 SOLVER.WARMUP_ITERS 0 SOLVER.IMS_PER_BATCH 2 DATALOADER.NUM_WORKERS 0"
SHORT += " MODEL.DEVICE cpu"


@pytest.fixture(scope="module")
def fakd(tmp_path_factory):
    """``fakd(arguments...)``: the installed command; what it printed, and the folder it was started in."""
    return Wheel(tmp_path_factory.mktemp("package"))


def test_the_wheel_trains_from_its_own_configs(fakd):
    config = ("--config-file", "configs/toyscenes/student.yaml")
    _, folder = fakd("train", *config, "OUTPUT_DIR", "alone", *SHORT.split())
    assert (folder / "alone" / "model_final.pth").is_file()


def test_help_is_complete_and_a_name_finds_every_kind_of_file_in_the_wheel(fakd):
    """In one process: first what imports nothing heavy, then what does."""
    code = """
import sys
import fakd.commands
assert "/environment/lib/" in fakd.__file__
def call(*words):
    sys.argv = ["fakd", *words]
    try:
        return fakd.commands.main()
    except SystemExit as ended:
        return ended.code
assert call("--help") == call("install-detectron2", "--help") == 0 and call("trian") == 2
assert not {"torch", "numpy"} & sys.modules.keys()
from fakd import load_config
from fakd.config import find_experiment
from fakd.sweep.spec import read_spec
assert load_config("toyscenes/student.yaml", recipe="projects/FAKD/variants/t4_margin.yaml").KD.LOSSES
named = find_experiment("FAKD/ade20k/pspnet_r18/fakd_paper")
assert load_config(named.config_file, named.opts, named.recipe).KD.LOSSES
read_spec("projects/FAKD/sweeps/toyscenes_table4.yaml")
print(load_config(opts=["PLUGINS", "projects/ExampleMethod/example_method.py"]).PLUGINS)
"""
    told, _ = fakd("-c", code, command="python")
    assert all(f"  {name} " in told for name in COMMANDS)
    assert "no command 'trian'. Did you mean train?" in told
    assert "--from" in told and "example_method.py" in told


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("doctor", "install-detectron2")])
def test_every_command_says_what_it_takes(name, monkeypatch, capsys):
    from fakd.commands import main

    monkeypatch.setattr(sys, "argv", ["/usr/bin/fakd", name, "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().out
    assert ended.value.code == 0 and told.startswith(f"usage: fakd {name} ")
    assert "%(" not in told and "tools/" not in told


@pytest.mark.slow
def test_the_wheel_runs_the_quickstart(fakd):
    told, folder = fakd("quickstart", *SHORT.split())
    assert (folder / "output" / "quickstart" / "report.html").is_file()
