"""Which parameters are trained at which rate and decay, and the batches a batch norm can do with."""

import pytest
import torch

from fakd.config import load_config
from fakd.engine import Trainer

SMALL = "MODEL.DEVICE cpu MODEL.BACKBONE.WIDTH 0.0625 MODEL.SEM_SEG_HEAD.CHANNELS 8".split()


def config(*opts):
    return load_config("configs/toyscenes/student.yaml", [*SMALL, *map(str, opts)], recipe="student")


def groups(*opts):
    """{parameter: (learning rate, weight decay)} by name, and the optimizer."""
    cfg = config(*opts)
    model = Trainer.build_model(cfg)
    optimizer = Trainer.build_optimizer(cfg, model)
    found = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    return {name: found[id(p)] for name, p in model.named_parameters()}, optimizer


def test_sgd_by_default_with_one_rate_and_decay_for_all():
    found, optimizer = groups("SOLVER.BASE_LR", 0.02, "SOLVER.WEIGHT_DECAY", 1e-4)
    assert isinstance(optimizer, torch.optim.SGD) and optimizer.defaults["momentum"] == 0.9
    assert set(found.values()) == {(0.02, 1e-4)}


def test_segformers_recipe():
    """AdamW, heads ten times as fast, no decay of norms."""
    opts = ["SOLVER.OPTIMIZER", "AdamW", "SOLVER.BASE_LR", 2**-14, "SOLVER.WEIGHT_DECAY", 0.01]
    found, optimizer = groups(*opts, "SOLVER.HEAD_LR_FACTOR", 10, "SOLVER.WEIGHT_DECAY_NORM", 0.0)
    assert isinstance(optimizer, torch.optim.AdamW) and optimizer.defaults["betas"] == (0.9, 0.999)
    assert found["backbone.net.layer1.0.conv1.weight"] == (2**-14, 0.01)
    assert found["backbone.net.layer1.0.bn1.weight"] == (2**-14, 0.0)
    assert (
        found["decode_head.conv_seg.weight"] == found["auxiliary_head.conv_seg.bias"] == (10 * 2**-14, 0.01)
    )
    assert found["decode_head.bottleneck.bn.bias"] == (10 * 2**-14, 0.0)


def test_an_unknown_optimizer_is_named():
    with pytest.raises(ValueError, match="SOLVER.OPTIMIZER is 'Adam'; choose from SGD, AdamW"):
        groups("SOLVER.OPTIMIZER", "Adam")


@pytest.mark.parametrize("head", ["PSPHead", "ASPPHead", "CIRKDDeepLabHead"])
def test_one_image_is_too_few_for_a_batch_norm_of_means(head, tmp_path):
    opts = ["MODEL.SEM_SEG_HEAD.NAME", head, "OUTPUT_DIR", tmp_path, "SOLVER.IMS_PER_BATCH"]
    with pytest.raises(
        ValueError, match=r"SOLVER.IMS_PER_BATCH 4.*(psp_modules\.0|image_pool).*to 8 or more"
    ):
        Trainer(config(*opts, 4, "SOLVER.ACCUMULATE", 4))
    Trainer(config(*opts, 4, "SOLVER.ACCUMULATE", 2))


def test_one_image_is_enough_for_a_network_without_such_a_branch(tmp_path):
    opts = ["MODEL.SEM_SEG_HEAD.NAME", "HRNetHead", "OUTPUT_DIR", tmp_path, "SOLVER.IMS_PER_BATCH", 1]
    trainer = Trainer(config(*opts))
    batch = [{"image": torch.zeros(3, 32, 32), "sem_seg": torch.zeros(32, 32, dtype=torch.int64)}]
    assert sum(trainer.model.train()(batch).values()).isfinite()
