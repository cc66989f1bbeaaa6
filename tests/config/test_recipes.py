"""Every recipe of the package loads, names losses that exist, and builds them."""

import pytest
from material import seg_spec

from fakd.config import RECIPES, load_config
from fakd.modeling.build import build_distill_losses
from fakd.registry import DISTILL_LOSS_REGISTRY

NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))


def test_there_are_recipes():
    assert {"student", "pd", "cwd", "fakd", "fakd_paper"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_builds_its_losses(name):
    cfg = load_config(opts=["MODEL.DEVICE", "cpu"], recipe=name)
    assert set(cfg.KD.LOSSES) <= {known for known, _ in DISTILL_LOSS_REGISTRY}
    losses = build_distill_losses(cfg, seg_spec(5, 8), seg_spec(5, 12, width=10))
    assert set(losses) == set(cfg.KD.LOSSES)
    assert cfg.MODEL.META_ARCHITECTURE == ("Distiller" if losses else "Segmentor")
    for loss_name, loss in losses.items():
        assert loss.config.weight == cfg.KD[loss_name].WEIGHT > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_where_it_comes_from_and_sets_nothing_but_the_method(name):
    text = (RECIPES / f"{name}.yaml").read_text()
    assert text.startswith("#")
    default, cfg = load_config(), load_config(recipe=name)
    for key in set(default) - {"KD", "MODEL"}:
        assert cfg[key] == default[key]
    for key in set(default.MODEL) - {"META_ARCHITECTURE"}:
        assert cfg.MODEL[key] == default.MODEL[key]


@pytest.mark.parametrize("fakd, plain", [("FAKDChannel", "CWD"), ("FAKDPixel", "PD")])
def test_every_recipe_of_fakd_has_a_plain_one_of_the_same_temperature_and_weight(fakd, plain):
    """Otherwise a comparison of the two says nothing about the augmentation."""

    def settings(loss):
        recipes = [load_config(recipe=name).KD for name in NAMES]
        return {(kd[loss].TAU, kd[loss].WEIGHT) for kd in recipes if tuple(kd.LOSSES) == (loss,)}

    assert settings(fakd) and settings(fakd) <= settings(plain)
