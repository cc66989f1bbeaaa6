"""A run may be resumed under a newer version that knows more keys, and not under another config."""

import pytest
import yaml

from fakd.config import load_config
from fakd.engine.run_folder import RunFolder


def _recorded_run(path, cfg):
    folder = RunFolder(path)
    folder.write_config(cfg)
    return folder


def test_a_key_that_came_later_at_its_default_does_not_stop_a_resume(tmp_path):
    folder = _recorded_run(tmp_path, load_config())
    recorded = yaml.safe_load(folder.config_file.read_text())
    del recorded["SOLVER"]["ACCUMULATE"], recorded["KD"]["CWD"]
    folder.config_file.write_text(yaml.safe_dump(recorded))

    folder.check_usable(load_config(), resume=True)
    with pytest.raises(ValueError, match="SOLVER.ACCUMULATE: 1 there, 2 now"):
        folder.check_usable(load_config(opts=["SOLVER.ACCUMULATE", "2"]), resume=True)


def test_a_run_is_not_resumed_with_other_classes(tmp_path):
    folder = _recorded_run(tmp_path, load_config(opts=["DATASETS.CLASSES", "('a','b')"]))
    others = load_config(opts=["DATASETS.CLASSES", "('b','a')"])
    with pytest.raises(ValueError, match=r"DATASETS.CLASSES: \['a', 'b'\] there, \['b', 'a'\] now"):
        folder.check_usable(others, resume=True)
    recorded = yaml.safe_load(folder.config_file.read_text())
    del recorded["DATASETS"]["CLASSES"]  # as an earlier version left it
    folder.config_file.write_text(yaml.safe_dump(recorded))
    folder.check_usable(others, resume=True)


def test_options_count_only_for_losses_in_use(tmp_path):
    folder = _recorded_run(tmp_path, load_config(recipe="cwd"))
    folder.check_usable(load_config(opts=["KD.PD.TAU", "2.0"], recipe="cwd"), resume=True)
    with pytest.raises(ValueError, match="KD.CWD.TAU"):
        folder.check_usable(load_config(opts=["KD.CWD.TAU", "2.0"], recipe="cwd"), resume=True)


def test_options_of_a_plugin_that_is_not_loaded_now_do_not_stop_a_resume(tmp_path):
    folder = _recorded_run(tmp_path, load_config(recipe="cwd"))
    recorded = yaml.safe_load(folder.config_file.read_text())
    recorded["KD"]["ElsewhereLoss"] = {"WEIGHT": 1.0}
    folder.config_file.write_text(yaml.safe_dump(recorded))
    folder.check_usable(load_config(recipe="cwd"), resume=True)


def test_a_file_is_no_folder_of_a_run(tmp_path):
    (tmp_path / "file").touch()
    for resume in (False, True):
        with pytest.raises(ValueError, match="OUTPUT_DIR '.*file' is a file; name a folder"):
            RunFolder(tmp_path / "file").check_usable(load_config(), resume)
