"""Our networks train under detectron2's own loops, which know nothing of us but the config keys."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.engine import DefaultTrainer, default_setup
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.utils.events import EventStorage

from fakd import add_fakd_config
from fakd.data import build_train_loader
from fakd.data.datasets.folders import datasets_root

from .conftest import tiny_config


class PlainTrainer(DefaultTrainer):
    """Only the data is ours: detectron2's mapper for it wants other augmentations."""

    @classmethod
    def build_train_loader(cls, cfg):
        return build_train_loader(cfg)


@pytest.mark.parametrize("recipe", ["student", "fakd"])
def test_default_trainer(teacher, tmp_path, recipe):
    cfg = tiny_config(tmp_path, *teacher, "SOLVER.MAX_ITER", 3, "DATASETS.TEST", "()", recipe=recipe)
    default_setup(cfg, None)
    trainer = PlainTrainer(cfg)
    trainer.resume_or_load(resume=False)
    before = trainer.model.state_dict()["decode_head.conv_seg.weight"].clone()
    trainer.train()
    assert not torch.equal(before, trainer.model.state_dict()["decode_head.conv_seg.weight"])
    assert trainer.storage.latest()["total_loss"][0] > 0
    # What it saved is a checkpoint of the plain student, also after a distillation.
    student = build_model(tiny_config(tmp_path, recipe="student"))
    DetectionCheckpointer(student).load(str(tmp_path / "model_final.pth"))
    trained = trainer.model.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in student.state_dict().items())


@pytest.mark.parametrize("recipe", ["student", "fakd"])
def test_a_loop_in_the_style_of_plain_train_net(teacher, tmp_path, recipe):
    cfg = tiny_config(tmp_path, *teacher, recipe=recipe)
    model = build_model(cfg)
    model.train()
    optimizer = build_optimizer(cfg, model)
    scheduler = build_lr_scheduler(cfg, optimizer)
    with EventStorage() as storage:
        for iteration, data in zip(range(3), build_train_loader(cfg), strict=False):
            storage.iter = iteration
            losses = model(data)
            assert all(value.ndim == 0 for value in losses.values())
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
            scheduler.step()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained)
    assert len(trained) == sum(len(group["params"]) for group in optimizer.param_groups)
    model.eval()
    image = {key: data[0][key] for key in ("image",)}
    with torch.no_grad():
        assert model([image])[0]["sem_seg"].shape == (12, 48, 64)


def test_the_keys_are_added_to_detectron2_s_own_config():
    cfg = get_cfg()
    add_fakd_config(cfg)
    assert "TEACHER" in cfg.KD and cfg.MODEL.RPN is not None


PAGE = Path(__file__).parents[2] / "docs" / "detectron2.md"


def test_the_trainers_of_the_page_run_outside_the_repository(tmp_path):
    """In a process of their own, which starts as a reader's does; one for both, as its start takes long."""
    options = '"SOLVER.IMS_PER_BATCH", 2, "MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", 0'
    code = ""
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[:2]:
        assert '"SOLVER.MAX_ITER", 50]' in block
        code += block.replace('"SOLVER.MAX_ITER", 50]', f'"SOLVER.MAX_ITER", 2, {options}]')
        code += "print('reached', trainer.iter, trainer._last_eval_results['sem_seg']['mIoU'])\n"
    environment = {**os.environ, "DETECTRON2_DATASETS": os.path.abspath(datasets_root())}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    reached = re.findall(r"^reached (\d+) (\S+)$", done.stdout, re.MULTILINE)
    assert [steps for steps, _ in reached] == ["2", "2"]
    assert all(0 <= float(miou) <= 100 for _, miou in reached)
    first, second = done.stdout.split("reached")[:2]
    assert "reads its own data from image 0" in first and "reads its own data" not in second
    assert all((tmp_path / "output" / name / "model_final.pth").is_file() for name in ("mine", "plain"))
