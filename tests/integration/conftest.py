"""Runs of the size of a test, in this process or in one of their own."""

import os
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.data.detection_utils import read_image
from ranks import Command

from fakd.config import load_config
from fakd.engine import evaluate, run

HERE = Path(__file__).parent
CONFIG = str(HERE / "tiny.yaml")
TRAIN_NET = str(HERE.parents[1] / "tools" / "train_net.py")


@pytest.fixture(scope="package", autouse=True)
def plugin(tmp_path_factory):
    """Makes ``tiny_plugin`` importable, here and in child processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKD_TINY_ROOT", str(tmp_path_factory.mktemp("tiny")))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))
        patch.syspath_prepend(str(HERE))
        yield


@pytest.fixture
def tiny():
    """``tiny(folder, KEY, VALUE, ..., recipe=, resume=, eval_only=)``: a run in this process; its metrics."""

    def start(folder, *opts, recipe=None, eval_only=False, **options):
        cfg = tiny_config(folder, *opts, recipe=recipe)
        return evaluate(cfg) if eval_only else run(cfg, **options)

    return start


@pytest.fixture
def train_net(tmp_path):
    """``train_net(folder, arguments..., own_group=)``: the command, started in a process of its own."""
    started = []

    def start(folder, *arguments, own_group=False):
        words = [TRAIN_NET, "--config-file", CONFIG, *arguments, "OUTPUT_DIR", str(folder)]
        process = Command(words, tmp_path / "printed.txt", own_group)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(scope="package")
def teacher(tmp_path_factory):
    """Options that name a teacher trained for a few steps."""
    folder = tmp_path_factory.mktemp("teacher")
    run(tiny_config(folder))
    return ["KD.TEACHER.CONFIG_FILE", CONFIG, "KD.TEACHER.WEIGHTS", str(folder / "model_final.pth")]


def tiny_config(folder, *opts, recipe=None):
    cfg = load_config(CONFIG, [*map(str, opts), "OUTPUT_DIR", str(folder)], recipe)
    cfg.freeze()
    return cfg


def weights(path):
    return torch.load(path)["model"]


def assert_same_weights(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def scenes(count, side):
    """The first corners of toyscenes' training images, as a loader gives them."""
    items = []
    for scene in DatasetCatalog.get("toyscenes_train")[:count]:
        image = torch.from_numpy(read_image(scene["file_name"], "RGB").copy()).permute(2, 0, 1)
        labels = torch.from_numpy(read_image(scene["sem_seg_file_name"]).copy()).squeeze(-1)
        items.append({"image": image[:, :side, :side], "sem_seg": labels[:side, :side]})
    return items
