"""Sweeps of the size of a test."""

import os
from pathlib import Path

import pytest
import yaml
from integration.conftest import CONFIG, plugin

__all__ = ["plugin"]

PLUGIN = str(Path(__file__).with_name("troubles.py"))


@pytest.fixture(autouse=True)
def no_network_interface(monkeypatch):
    """Ray looks at these before it looks at the machine; a sweep in this process has set the second."""
    for name in ("RAY_ADDRESS", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


def content(**changes):
    """What a sweep file holds: a student alone and by CWD, a teacher of two steps."""
    return {
        "base": CONFIG,
        "teacher": {"config": CONFIG, "opts": {"SOLVER.MAX_ITER": 2}},
        "methods": ["student", "cwd"],
        "opts": {"SOLVER.CHECKPOINT_PERIOD": 1, "TEST.EVAL_PERIOD": 2},
        "stop": {"iterations": 4},
        "resources": {"cpus": 1},
    } | changes


def trouble(folder, name, **options):
    """A recipe with one of the losses of ``troubles.py``."""
    path = folder / f"{name.lower()}.yaml"
    options = {key.upper(): value for key, value in options.items()}
    recipe = {
        "PLUGINS": [PLUGIN],
        "KD": {"LOSSES": [name], name: options},
    }
    path.write_text(yaml.safe_dump(recipe))
    return str(path)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
