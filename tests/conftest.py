"""What every test shares."""

import gc
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
import reference
import torch

from fakd.functional import augmentation, divergence

# Small tensors: a second thread costs more than it brings, and much more on a busy machine, and the order
# of additions depends on the number of threads. Processes that tests start inherit the variable.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
cv2.setNumThreads(1)


def pytest_collection_finish() -> None:
    """What is imported by now stays: no collection need look through it, which takes half a second each."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def golden() -> reference.Golden:
    """The deterministic inputs behind the golden values."""
    return reference.golden_inputs()


@pytest.fixture
def tool(monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """``tool(name, arguments...)``: a command line in this process; its exit code and what it printed."""

    def start(name: str, *arguments: object) -> tuple[int, str]:
        path = Path(__file__).parents[1] / "tools" / f"{name}.py"
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(path), run_name="__main__")
        return ended.value.code or 0, "".join(capsys.readouterr())

    return start


@pytest.fixture(params=["cpu", "small blocks", "accelerator"])
def computed_as(request, monkeypatch) -> str:
    """Computes the fused losses here as on the CPU, in tiny blocks, or with the choices of another device."""
    if request.param == "small blocks":
        monkeypatch.setattr(divergence, "CPU_BLOCK", 8)
    if request.param == "accelerator":
        blocks, safe_form = divergence.blocks, augmentation._safe_form

        def whole(shape, device, over):
            return blocks(shape, torch.device("cuda"), over)

        def without_looking(g):
            like, block = safe_form(g.to("meta"))
            return g.to(like.dtype), block

        monkeypatch.setattr(divergence, "blocks", whole)
        monkeypatch.setattr(augmentation, "blocks", whole)
        monkeypatch.setattr(augmentation, "_safe_form", without_looking)
    return request.param
