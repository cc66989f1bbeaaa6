"""The keys that fakd says act here are those that real runs read, and no others of detectron2's."""

import sys
from pathlib import Path

import pytest
import yacs.config
from detectron2.config import get_cfg

from fakd.config import load_config
from fakd.config.defaults import KEYS
from fakd.config.setup import flat_keys, read_keys
from fakd.deploy.metadata import classes_and_colours
from fakd.engine import Trainer, evaluate, run
from fakd.modeling.build import build_segmentor
from fakd.registry import DECODE_HEAD_REGISTRY

from .conftest import CONFIG

ROOT = Path(__file__).parents[2]
# Read by load_config itself, which resolves them.
RESOLVED = {"PLUGINS", "PROTOCOL", "KD.TEACHER.RUN"}
# Read by detectron2's test loader, for proposals, of which segmentation has none.
OF_DETECTION = {"MODEL.LOAD_PROPOSALS"}
# Places whose reading is no use: yacs itself, the checks of a config and this file.
SKIPPED = (
    "yacs/config.py",
    "fakd/config/setup.py",
    "fakd/config/checks.py",
    "fakd/engine/check.py",
    __file__,
)


def label(node, prefix=""):
    """Tells every node of a config, and so its copies, what it is called."""
    node.__dict__["full_name"] = prefix
    for name, value in node.items():
        if isinstance(value, yacs.config.CfgNode):
            label(value, f"{prefix}{name}.")
    return node


@pytest.fixture
def read(monkeypatch):
    """The full names of the keys that are read from labelled configs."""
    names = set()

    def getitem(node, name):
        frame = sys._getframe(1)
        if frame.f_code.co_filename.endswith("yacs/config.py"):  # node.NAME
            frame = frame.f_back
        if not frame.f_code.co_filename.endswith(SKIPPED) and "full_name" in node.__dict__:
            names.add(node.__dict__["full_name"] + name)
        return dict.__getitem__(node, name)

    monkeypatch.setattr(yacs.config.CfgNode, "__getitem__", getitem, raising=False)
    return names


def config(folder, *opts, recipe=None):
    return label(load_config(CONFIG, [*map(str, opts), "OUTPUT_DIR", str(folder)], recipe))


def test_what_runs_read_is_what_acts(read, teacher, tmp_path):
    short = ("SOLVER.MAX_ITER", 2, "SOLVER.WARMUP_ITERS", 1)
    views = ("TEST.WINDOW", (48, 64), "TEST.STRIDE", (48, 64), "TEST.SAVE", ("png",))
    clipped = ("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norm")
    run(config(tmp_path / "distilled", *short, *views, *clipped, *teacher, recipe="fakd"))
    evaluate(config(tmp_path / "distilled", *short, *teacher, recipe="fakd"))
    run(config(tmp_path / "int8", *short, "DEPLOY.QAT.ENABLED", True))
    for name, _ in DECODE_HEAD_REGISTRY:
        if name != "FCNHead":  # which is the auxiliary one
            build_segmentor(config("", "MODEL.SEM_SEG_HEAD.NAME", name, "MODEL.BACKBONE.WIDTH", 1.0))
    classes_and_colours(config(""))
    cfg = config("", "SOLVER.POLY_POWER", 0.0)
    optimizer = Trainer.build_optimizer(cfg, build_segmentor(cfg))
    for name in KEYS["SOLVER.LR_SCHEDULER_NAME"].range.choices:
        Trainer.build_lr_scheduler(
            config("", "SOLVER.POLY_POWER", 0.0, "SOLVER.LR_SCHEDULER_NAME", name), optimizer
        )

    assert "INPUT.CROP.SIZE" in read and "SOLVER.GAMMA" in read  # it does record
    inert = set(flat_keys(get_cfg())) - set(KEYS)
    assert len(inert) > 100
    assert sorted(read & inert - OF_DETECTION) == []
    assert sorted(set(KEYS) - RESOLVED - read) == []


@pytest.mark.parametrize("folder", ["configs", "fakd/config/recipes", "tests"])
def test_every_file_names_keys_that_act(folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    inert = set(flat_keys(get_cfg())) - set(KEYS)
    files = [path for path in (ROOT / folder).rglob("*.yaml") if "MODEL:" in path.read_text()]
    assert files
    for path in files:
        if "SemanticSegmentor" not in path.read_text():  # a config of detectron2's own
            assert not inert & set(read_keys(str(path))), path
