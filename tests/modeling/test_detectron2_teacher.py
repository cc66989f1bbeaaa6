"""detectron2's DeepLabV3+ teaches one of this project's students."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.projects.deeplab import add_deeplab_config
from torch import nn

from fakd.config import load_config
from fakd.modeling import Distiller
from fakd.modeling.build import build_teacher
from fakd.modeling.detectron2_teacher import Detectron2Head
from fakd.sweep.plan import make_plan
from fakd.sweep.spec import parse_spec

TEACHER = """
MODEL:
  META_ARCHITECTURE: SemanticSegmentor
  PIXEL_MEAN: [103.5, 116.3, 123.7]
  PIXEL_STD: [57.4, 57.1, 58.4]
  BACKBONE: {NAME: build_resnet_backbone, FREEZE_AT: 0}
  RESNETS: {DEPTH: 18, RES2_OUT_CHANNELS: 64, NORM: BN, STEM_TYPE: basic, OUT_FEATURES: [res2, res5]}
  SEM_SEG_HEAD:
    NAME: DeepLabV3PlusHead
    IN_FEATURES: [res2, res5]
    PROJECT_FEATURES: [res2]
    PROJECT_CHANNELS: [8]
    ASPP_CHANNELS: 8
    CONVS_DIM: 8
    NUM_CLASSES: 12
    NORM: BN
    LOSS_TYPE: cross_entropy
"""


@pytest.fixture
def files(tmp_path):
    """A config of detectron2's DeepLab project, weights of it, and the model they are of."""
    torch.manual_seed(0)
    config = tmp_path / "deeplab.yaml"
    config.write_text(TEACHER)
    cfg = get_cfg()
    add_deeplab_config(cfg)
    cfg.merge_from_file(str(config))
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg).eval()
    nn.init.normal_(model.sem_seg_head.predictor.weight)
    torch.save({"model": model.state_dict()}, tmp_path / "w.pth")
    return str(config), str(tmp_path / "w.pth"), model


def student_config(config, weights):
    options = ["MODEL.DEVICE", "cpu", "KD.TEACHER.CONFIG_FILE", config, "KD.TEACHER.WEIGHTS", weights]
    return load_config("configs/toyscenes/student.yaml", options, recipe="cwd")


def test_it_gives_detectron2s_scores_and_what_is_before_them(files):
    config, weights, model = files
    teacher = build_teacher(student_config(config, weights)).eval()
    assert teacher.input_format == "BGR"
    image = torch.randint(256, (3, 64, 96))
    with torch.no_grad():
        output = teacher.encode(image[None].float())
        normal = (image[None] - model.pixel_mean) / model.pixel_std
        wanted = model.sem_seg_head.layers(model.backbone(normal))
    assert torch.equal(output.logits, wanted) and output.feature.shape == (1, 8, 16, 24)
    linear = torch.einsum("ka,nahw->nkhw", output.weight, output.feature) + output.bias[:, None, None]
    torch.testing.assert_close(output.logits, linear)


def test_a_student_takes_a_step_beside_it(files):
    config, weights, _ = files
    distiller = Distiller(student_config(config, weights)).train()
    image = torch.randint(256, (3, 64, 64))
    batch = [{"image": image, "sem_seg": torch.randint(12, (64, 64))} for _ in range(2)]
    sum(distiller(batch).values()).backward()
    assert all(p.grad is None for p in distiller.teacher.parameters())
    assert any(p.grad.abs().sum() > 0 for p in distiller.student.parameters())


def test_another_kind_of_head_is_refused():
    with pytest.raises(ValueError, match="Sequential cannot be a teacher"):
        Detectron2Head(nn.Sequential(nn.Conv2d(3, 3, 1)))


def test_a_teachers_config_that_is_no_yaml_is_named(tmp_path):
    broken = tmp_path / "teacher.yaml"
    broken.write_text("MODEL: [")
    with pytest.raises(ValueError, match=r"teacher\.yaml: cannot be read as yaml"):
        build_teacher(student_config(str(broken), "w.pth"))


def test_a_sweep_is_planned_with_it(files, tmp_path):
    config, weights, _ = files
    given = {"base": "configs/toyscenes/student.yaml", "teacher": {"config": config, "weights": weights}}
    plan = make_plan(parse_spec({**given, "methods": ["pd"]}), tmp_path / "out")
    assert not plan.teachers and len(plan.trials) == 1
