"""Files and options that a run cannot use get one line that names them."""

import sys

import pytest
import torch
from detectron2.data import DatasetCatalog
from integration.conftest import tiny_config
from torch.multiprocessing import ProcessRaisedException

from fakd.commands.train import parse
from fakd.engine import cli
from fakd.engine.run_folder import RunFolder
from fakd.errors import call_tool

MINE = "classes: [a, b]\nsplits: {train: {images: images, labels: labels}}\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "There are no weights at '.*w.pth'"),
        ([torch.zeros(2)], "w.pth' is no checkpoint: it holds no weights by name"),
        ({"model": [torch.zeros(2)]}, "w.pth' is no checkpoint: it holds no weights by name"),
        ({"model": {"decode_head.conv_seg.bias": 3}}, "decode_head.conv_seg.bias|None of the"),
    ],
)
def test_weights_that_are_none_are_named(tiny, tmp_path, content, reason):
    if content is not None:
        torch.save(content, tmp_path / "w.pth")
    for eval_only in (False, True):
        with pytest.raises((ValueError, FileNotFoundError), match=reason):
            folder = tmp_path / f"run{eval_only}"
            tiny(folder, "MODEL.WEIGHTS", tmp_path / "w.pth", eval_only=eval_only)


def test_a_run_on_data_of_one_s_own_goes_on_where_the_project_was_moved(tmp_path):
    def config(place):
        return tiny_config(tmp_path / "run", "DATASETS.CUSTOM", str([str(place / "mine.yaml")]))

    for place in (tmp_path / "before", tmp_path / "after"):
        (place / "run").mkdir(parents=True)
        (place / "mine.yaml").write_text(MINE)
        folder, cfg = RunFolder(tmp_path / "before" / "run"), config(place)
        folder.check_usable(cfg, resume=place.name == "after")
        folder.write_config(cfg)
        DatasetCatalog.remove("mine_train")


@pytest.mark.parametrize("text", ["", "- a\n", "a: [", "\0"])
def test_a_damaged_config_is_named_on_resume(tiny, tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"config.yaml' is damaged"):
        tiny(tmp_path, resume=True)


@pytest.mark.parametrize("text", ["", "{", "[1]", "{}", '{"metrics_by_dataset": 3}', "null"])
def test_a_damaged_result_is_named_on_resume(tiny, tmp_path, text):
    RunFolder(tmp_path).write_config(tiny_config(tmp_path))
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ValueError, match=r"result.json' is damaged.*--resume"):
        tiny(tmp_path, resume=True)


@pytest.mark.parametrize("arguments", [["--resume", "SEED", "-1"], ["SEED", "-1", "--resume"]])
def test_flags_and_keys_come_in_any_order(monkeypatch, arguments):
    monkeypatch.setattr(sys, "argv", ["train_net.py", "--config-file", "a.yaml", *arguments])
    given = parse()
    assert given.resume and given.opts == ["SEED", "-1"] and given.config_file == "a.yaml"


@pytest.mark.parametrize(
    ("last", "shown"),
    [
        ("ValueError: no such dataset", "error: no such dataset\n"),
        ("KeyError: 'KD.LOSSES: x'", "error: KD.LOSSES: x\n"),
        ("UnicodeDecodeError: 'utf-8' codec can't decode", "error: 'utf-8' codec can't decode\n"),
    ],
)
def test_a_users_error_in_one_of_several_processes_is_one_line(monkeypatch, capsys, last, shown):
    def launch(*args, **options):
        raise ProcessRaisedException(
            f"\n\n-- Process 1 terminated with the following error:\n...\n{last}\n", 1, 2
        )

    monkeypatch.setattr(cli, "launch", launch)
    assert call_tool(lambda: cli.launch_ranks(print, (2, 1, 0, "auto"))) == 1
    assert capsys.readouterr().err == shown
