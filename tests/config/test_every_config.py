"""Every config here, and every experiment of the papers' tables, builds without memory for weights."""

import functools
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from fakd.config import load_config, read_experiments
from fakd.modeling.build import build_distill_losses, build_segmentor
from fakd.structures import SegSpec

ROOT = Path(__file__).parents[2]
ON_META = ("MODEL.DEVICE", "meta", "MODEL.BACKBONE.PRETRAINED", "none")
CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "configs").glob("*/*.yaml")
    # Those for data of one's own are built on such data, in tests/integration/test_own_data.py.
    if not path.name.startswith("_") and path.name != "custom.yaml" and path.parent.name != "custom"
)
SPECS: dict[str, SegSpec] = {}

load_alone = functools.cache(lambda file: load_config(file, ON_META, "student"))


@pytest.fixture(autouse=True)
def root(monkeypatch):
    monkeypatch.chdir(ROOT)


def spec(cfg: CfgNode) -> SegSpec:
    """Of the network of a config, which is built once."""
    network = cfg.MODEL.clone()
    network.META_ARCHITECTURE = ""
    if str(network) not in SPECS:
        with torch.device("meta"):
            SPECS[str(network)] = build_segmentor(cfg).spec
    return SPECS[str(network)]


def test_there_are_configs():
    assert len(CONFIGS) > 40


@pytest.mark.parametrize("folder", sorted({str(Path(file).parent) for file in CONFIGS}))
def test_every_config_builds_for_its_data(folder):
    for file in CONFIGS:
        if not file.startswith(f"{folder}/"):
            continue
        cfg = load_alone(file)
        for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
            assert len(MetadataCatalog.get(name).stuff_classes) == spec(cfg).num_classes, file
        if cfg.KD.TEACHER.CONFIG_FILE:
            assert cfg.KD.TEACHER.CONFIG_FILE in CONFIGS, file


@pytest.mark.parametrize(
    "project", sorted(path.parent.name for path in ROOT.glob("projects/*/experiments.yaml"))
)
def test_student_teacher_and_losses_of_every_experiment_build(project):
    built = set()
    for name, experiment in read_experiments(project).items():
        cfg = load_config(experiment.config_file, [*experiment.opts, *ON_META], experiment.recipe)
        teacher_cfg = load_alone(cfg.KD.TEACHER.CONFIG_FILE)
        student, teacher = spec(cfg), spec(teacher_cfg)
        assert student.num_classes == teacher.num_classes, name
        for loss in cfg.KD.LOSSES:
            key = f"{loss}{cfg.KD[loss]}{student}{teacher}"
            if key not in built:
                cfg.KD.LOSSES = (loss,)
                with torch.device("meta"):
                    assert set(build_distill_losses(cfg, student, teacher)) == {loss}, name
            built.add(key)
    assert len(built) > 50
