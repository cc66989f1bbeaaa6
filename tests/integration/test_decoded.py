"""A training that reads decoded images is the one that reads the files."""

import sys

from fakd.commands import data
from fakd.engine import run

from .conftest import CONFIG, assert_same_weights, tiny_config, weights


def test_a_training_ends_with_the_same_weights(tmp_path, monkeypatch, capsys):
    folder = str(tmp_path / "decoded")
    monkeypatch.setattr(sys, "argv", ["fakd data", "decode", "--config-file", CONFIG, "--output", folder])
    data.main()
    assert f"Train with DATALOADER.DECODED {folder}." in capsys.readouterr().out
    for name, decoded in (("files", ""), ("bytes", folder)):
        run(tiny_config(tmp_path / name, "SOLVER.MAX_ITER", 3, "DATALOADER.DECODED", decoded))
    assert_same_weights(*(weights(tmp_path / name / "model_final.pth") for name in ("files", "bytes")))
