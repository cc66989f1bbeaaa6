"""docs/own_data.md as it is printed, with small budgets, in a folder of its own."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from fakd.data.datasets.toyscenes import draw_scene

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own_data.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
# What keeps a test short: few steps on small pictures, and a narrow network from random weights.
BUDGET = "SOLVER.MAX_ITER 2 SOLVER.WARMUP_ITERS 0 SOLVER.IMS_PER_BATCH 2 DATALOADER.NUM_WORKERS 0"
BUDGET += " MODEL.DEVICE cpu INPUT.BASE_SIZE (96,72) INPUT.CROP.SIZE (64,64)"
BUDGET += " MODEL.BACKBONE.PRETRAINED none MODEL.BACKBONE.TIMM_NAME resnet18 MODEL.BACKBONE.WIDTH 0.0625"
BUDGET += " MODEL.SEM_SEG_HEAD.CHANNELS 8"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder as a user's: the repository's configs, and twelve pictures with three classes."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "configs").symlink_to(ROOT / "configs")
    for seed in range(12):
        split = "train" if seed < 8 else "val"
        image, label = draw_scene(seed)
        for kind, content, ending in (("images", image, "jpg"), ("labels", label % 3, "png")):
            path = folder / "my_data" / kind / split / f"{seed}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(path)
    yield folder
    for name in [name for name in DatasetCatalog.list() if name.startswith(("my_data_", "photographs_"))]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_the_page_leads_from_pictures_to_a_student(place, tool, monkeypatch):
    monkeypatch.chdir(place)
    (place / "my_data.yaml").write_text(next(text for kind, text in BLOCKS if kind == "yaml"))
    (place / "my_dataset.py").write_text(next(text for kind, text in BLOCKS if kind == "python"))
    texts = [text.replace("\\\n", " ") for kind, text in BLOCKS if not kind]
    commands = [line for text in texts for line in text.splitlines() if "tools/" in line]
    assert len(commands) == 9
    for line in commands:
        python, name, *arguments = shlex.split(line)
        assert python == "python"
        name = name.removeprefix("tools/").removesuffix(".py")
        if name == "train_net":
            arguments += BUDGET.split()
        code, text = tool(name, *arguments)
        assert code == 0, f"{line}\n{text}"
    config = yaml.safe_load((place / "output" / "distilled" / "config.yaml").read_text())
    assert config["MODEL"]["SEM_SEG_HEAD"]["NUM_CLASSES"] == 3 and config["KD"]["LOSSES"]
    assert (place / "output" / "datasets" / "my_data_train.png").is_file()
    assert list((place / "output" / "compare").glob("*.html"))
    for folder, student in (("demo", "distilled"), ("exported", "student.onnx")):
        assert len(list((place / "output" / folder).glob("*_overlay.jpg"))) == 4, student
    with Image.open(place / "output" / "demo" / "9_labels.png") as labels:
        assert labels.size == (128, 96) and np.array(labels).max() <= 2


def test_other_ids_suggest_the_line_that_the_page_shows(place, tool, monkeypatch):
    monkeypatch.chdir(place)
    text = next(text for kind, text in BLOCKS if kind == "yaml")
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
