"""Every recipe trains, and a critic is trained beside the student under any trainer and over a resume."""

import json

import pytest
import torch
from detectron2.engine import default_setup

from fakd.config import NO_RECIPE, RECIPES
from fakd.registry import DISTILL_LOSS_REGISTRY

from .conftest import assert_same_weights, tiny_config, weights
from .test_detectron2 import PlainTrainer

# The maps are 6x8, too small for a critic that halves them. The hardly trained teacher's logits are small,
# and the curvature of the penalty is one over their variance.
SMALL = ["KD.SKDSHolistic.WIDTHS", "()", "KD.SKDSHolistic.CRITIC_LR", 1e-6]
METHODS = sorted(path.stem for path in RECIPES.glob("*.yaml") if path.stem != NO_RECIPE)


@pytest.mark.parametrize("recipe", METHODS)
def test_every_recipe_trains(tiny, teacher, tmp_path, recipe):
    tiny(tmp_path, *teacher, *SMALL, "SOLVER.MAX_ITER", 2, "DATASETS.TEST", "()", recipe=recipe)
    assert json.loads((tmp_path / "result.json").read_text())["method"] == recipe


def test_all_losses_train_in_sum(tiny, teacher, tmp_path):
    names = sorted(n for n, loss in DISTILL_LOSS_REGISTRY if loss.__module__.startswith("fakd."))
    losses = ["KD.LOSSES", str(names), "SOLVER.BASE_LR", 1e-4]
    tiny(tmp_path, *teacher, *SMALL, *losses, "SOLVER.MAX_ITER", 2, recipe="fakd")
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    logged = {key for line in lines for key in line}
    assert {f"loss_{name}" for name in names} <= logged


@pytest.mark.parametrize("recipe", ["skds", "ifvd_cirkd"])
def test_a_resumed_critic_ends_as_an_undisturbed_one(tiny, teacher, tmp_path, recipe):
    tiny(tmp_path, *teacher, *SMALL, recipe=recipe)
    undisturbed = torch.load(tmp_path / "model_0000011.pth")
    for name in ("model_0000011.pth", "model_final.pth", "result.json"):
        (tmp_path / name).unlink()
    tiny(tmp_path, *teacher, *SMALL, recipe=recipe, resume=True)
    resumed = torch.load(tmp_path / "model_0000011.pth")
    assert_same_weights(undisturbed["model"], resumed["model"])
    state = undisturbed["distillation"]
    assert any("critic" in key for key in state) and state["SKDSHolistic._extra_state"]["state"]
    torch.testing.assert_close(dict(resumed["distillation"]), dict(state), rtol=0, atol=0)
    assert not any("critic" in key for key in weights(tmp_path / "model_final.pth"))


def test_detectron2_s_own_trainer_trains_the_critic_too(teacher, tmp_path):
    opts = [*teacher, *SMALL, "SOLVER.MAX_ITER", 2, "DATASETS.TEST", "()"]
    cfg = tiny_config(tmp_path, *opts, recipe="skds")
    default_setup(cfg, None)
    trainer = PlainTrainer(cfg)
    critic = trainer.model.losses["SKDSHolistic"].critic
    before = [p.clone() for p in critic.parameters()]
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert any(not torch.equal(a, b) for a, b in zip(before, critic.parameters(), strict=True))
    known = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert not known & {id(p) for p in critic.parameters()}
