"""How tools end."""

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
