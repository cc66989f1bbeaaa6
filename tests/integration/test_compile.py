"""SOLVER.COMPILE: refused where it cannot work, and the same training where it can."""

import logging
import sysconfig

import pytest
import torch

from fakd.engine import run
from fakd.engine.check import check_config
from fakd.engine.compiling import missing_for_compiling

from .conftest import tiny_config, weights


@pytest.mark.parametrize("key", [("SOLVER.COMPILE", True), ("KD.TEACHER.FAST", "('fold', 'compile')")])
def test_a_machine_without_a_compiler_is_told_so(monkeypatch, key):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        ValueError, match="torch.compile, but there is no C\\+\\+ compiler 'no-such-compiler'"
    ):
        check_config(tiny_config("output", *key))
    check_config(tiny_config("output"))


def test_a_machine_without_python_s_headers_is_told_so(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "python3")  # anything that is there
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    assert "Python.h" in missing_for_compiling("cpu")
    (tmp_path / "Python.h").touch()
    assert missing_for_compiling("cpu") == ""


def test_what_is_compiled_is_not_checkpointed(monkeypatch):
    monkeypatch.setattr("fakd.engine.check.missing_for_compiling", lambda device: "")
    with pytest.raises(ValueError, match="both True"):
        check_config(tiny_config("output", "SOLVER.COMPILE", True, "MODEL.ACTIVATION_CHECKPOINTING", True))


@pytest.mark.slow
@pytest.mark.skipif(missing_for_compiling("cpu") != "", reason="torch.compile needs a C++ compiler")
def test_a_compiled_training_follows_the_other(tmp_path, teacher, caplog):
    caplog.set_level(logging.INFO, "fakd")
    opts = [*teacher, "SOLVER.MAX_ITER", 3, "MODEL.SEM_SEG_HEAD.DROPOUT", 0.0]
    for name, compiled in (("eager", False), ("compiled", True)):
        run(tiny_config(tmp_path / name, *opts, "SOLVER.COMPILE", compiled, recipe="fakd"))
    assert "The first step compiles the networks" in caplog.text and "Compiled: the first step" in caplog.text
    eager, compiled = (weights(tmp_path / each / "model_final.pth") for each in ("eager", "compiled"))
    assert eager.keys() == compiled.keys()
    for name in eager:
        torch.testing.assert_close(compiled[name], eager[name], rtol=1e-3, atol=1e-3)
