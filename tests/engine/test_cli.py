"""How tools end."""

import sys
from importlib import import_module

import pytest
from torch.utils.data import DataLoader, Dataset

from fakd.errors import call_tool


class Broken(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise ValueError("the label file 'a.png' holds the id 77")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_data_worker_is_one_line(capsys, workers):
    assert call_tool(lambda: list(DataLoader(Broken(), num_workers=workers))) == 1
    assert capsys.readouterr().err == "error: the label file 'a.png' holds the id 77\n"


def test_key_errors_lose_their_quotes(capsys):
    assert call_tool(lambda: {}["KD.LOSSES: 'x' is unknown"]) == 1
    assert capsys.readouterr().err == "error: KD.LOSSES: 'x' is unknown\n"


def test_mistakes_of_the_program_and_wished_tracebacks_are_raised(monkeypatch):
    with pytest.raises(TypeError):
        call_tool(lambda: 1 + "a")
    monkeypatch.setenv("FAKD_TRACEBACK", "1")
    with pytest.raises(KeyError):
        call_tool(lambda: {}["x"])


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (3, 3)])
def test_the_exit_code_is_the_tool_s(returned, code):
    assert call_tool(lambda: returned) == code


@pytest.mark.parametrize(
    ("command", "words", "told"),
    [
        ("export", "--threads -1", "--threads: -1 is below 1"),
        ("export", "--size 0 0", "--size: 0 is below 1"),
        ("export", "--calibration -3", "--calibration: -3 is below 1"),
        ("export", "--threads one", "--threads: invalid int value: 'one'"),
        ("demo", "--webcam -1", "--webcam: -1 is below 0"),
        ("demo", "--max-frames 0", "--max-frames: 0 is below 1"),
        ("demo", "--batch-size 0", "--batch-size: 0 is below 1"),
    ],
)
def test_a_number_below_the_least_is_refused_by_its_flag(command, words, told, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [command, *words.split()])
    with pytest.raises(SystemExit) as ended:
        import_module(f"fakd.commands.{command}").main()
    assert ended.value.code == 2 and told in capsys.readouterr().err
