"""docs/own_data.md as printed, with small budgets, in a folder of its own; slowly also from the wheel."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from wheel_install import Wheel, environment

from fakd.commands import main
from fakd.data.datasets.toyscenes import draw_scene

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own_data.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
# What keeps a test short: few steps on small pictures, and a narrow network from random weights. Of half the
# width, whose maps of four channels lie channels last, PyTorch 2.15 aborts in the backward pass on processors
# with AVX2 alone.
BUDGET = "SOLVER.MAX_ITER 2 SOLVER.WARMUP_ITERS 0 SOLVER.IMS_PER_BATCH 2 DATALOADER.NUM_WORKERS 0"
BUDGET += " MODEL.DEVICE cpu INPUT.BASE_SIZE (96,72) INPUT.CROP.SIZE (64,64)"
BUDGET += " MODEL.BACKBONE.PRETRAINED none MODEL.BACKBONE.TIMM_NAME resnet18 MODEL.BACKBONE.WIDTH 0.125"
BUDGET += " MODEL.SEM_SEG_HEAD.CHANNELS 8"


# What is typed where it is installed; the wheel of the tests finds its packages here.
INSTALLING = """
python3 -m venv env
source env/bin/activate
pip install './fakd-0.1.0-py3-none-any.whl[export]'
fakd install-detectron2
python3 -m venv small
small/bin/pip install onnxruntime numpy pillow
""".split("\n")


def block(kind: str, part: str) -> str:
    """The page's block of this language that holds a text."""
    return next(text for language, text in BLOCKS if language == kind and part in text)


def commands() -> list[str]:
    """The page's command lines, in their order."""
    texts = [text.replace("\\\n", " ") for language, text in BLOCKS if not language]
    return [line for text in texts for line in text.splitlines() if not line.startswith("my_data/")]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder as a user's, the current one: twelve pictures with three classes."""
    for seed in range(12):
        split = "train" if seed < 8 else "val"
        image, label = draw_scene(seed)
        for kind, content, ending in (("images", image, "jpg"), ("labels", label % 3, "png")):
            path = tmp_path / "my_data" / kind / split / f"{seed}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in DatasetCatalog.list() if name.startswith(("my_data_", "photographs_"))]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture(params=["here", pytest.param("wheel", marks=pytest.mark.slow)])
def fakd(request, place, monkeypatch, capsys, tmp_path_factory):
    """The command ``fakd``, of this process or installed from the wheel."""

    def start(*words: str) -> None:
        monkeypatch.setattr(sys, "argv", ["fakd", *words])
        code = main()
        told = capsys.readouterr()
        assert code == 0, f"{words}\n{told.out[-2000:]}{told.err}"

    if request.param == "here":
        return start
    wheel = Wheel(tmp_path_factory.mktemp("wheel"))
    return lambda *words: wheel(*words, cwd=place)


def test_the_page_leads_from_pictures_to_predictions_on_another_machine(place, fakd):
    (place / "my_data.yaml").write_text(block("yaml", "root: my_data"))
    (place / "my_dataset.py").write_text(block("python", "DatasetCatalog"))
    (place / "predict.py").write_text(block("python", "onnxruntime"))
    lines = [line for line in commands() if line not in INSTALLING]
    assert len(lines) == 10
    environment(place / "small", ("onnxruntime", "numpy", "pillow"))
    for line in lines:
        program, *words = shlex.split(line)
        if program == "fakd":
            fakd(*words, *(BUDGET.split() if words[0] == "train" else ()))
        else:
            subprocess.run(["bash", "-c", line], check=True)
    config = yaml.safe_load((place / "output" / "distilled" / "config.yaml").read_text())
    assert config["MODEL"]["SEM_SEG_HEAD"]["NUM_CLASSES"] == 3 and config["KD"]["LOSSES"]
    assert (place / "output" / "datasets" / "my_data_train.png").is_file()
    assert list((place / "output" / "compare").glob("*.html"))
    for folder in ("demo", "exported"):
        assert len(list((place / "output" / folder).glob("*_overlay.jpg"))) == 4, folder
    with Image.open(place / "output" / "demo" / "9_labels.png") as here:
        with Image.open(place / "9_labels.png") as there:
            assert here.size == (128, 96) and np.array(here).max() <= 2
            assert (np.array(here) == np.array(there)).mean() > 0.999


def test_the_other_machine_has_neither_this_package_nor_pytorch(tmp_path):
    small = environment(tmp_path / "small", ("onnxruntime", "numpy", "pillow"))
    code = "import importlib.util as u; print([n for n in ('fakd', 'torch', 'PIL') if u.find_spec(n)])"
    command = [str(small / "bin" / "python"), "-I", "-c", code]
    assert subprocess.check_output(command, text=True) == "['PIL']\n"


def test_other_ids_suggest_the_line_that_the_page_shows(place, tool):
    text = block("yaml", "root: my_data")
    for path in (place / "my_data" / "labels").glob("*/*.png"):
        with Image.open(path) as label:
            ids = np.array(label)
        other = place / "other" / "labels" / path.parent.name / path.name
        other.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(10 * (ids + 1)).save(other)
    (place / "other" / "images").symlink_to(place / "my_data" / "images")
    description = place / "other.yaml"
    description.write_text(text.replace("root: my_data ", "name: my_data_other\nroot: other "))
    code, printed = tool("datasets/check", "--custom", description, "--workers", 1)
    assert code == 1 and "put 'id_map: {10: 0, 20: 1, 30: 2}' into" in printed
    description.write_text(description.read_text().replace("# id_map", "id_map"))
    code, printed = tool("datasets/check", "--custom", description, "--workers", 1)
    assert code == 0, printed
