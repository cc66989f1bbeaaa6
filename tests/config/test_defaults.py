"""What is added to the config: once, with a node per loss, and nothing that cannot be written down."""

import copy
import json

import pytest
from detectron2.config import CfgNode, get_cfg

from fakd import add_fakd_config
from fakd.registry import DISTILL_LOSS_REGISTRY


def added():
    cfg = get_cfg()
    add_fakd_config(cfg)
    return cfg


def test_adding_twice_changes_nothing_and_keeps_what_was_set():
    cfg = added()
    cfg.KD.CWD.TAU = 7.0
    cfg.SEED = 3
    before = copy.deepcopy(cfg)
    add_fakd_config(cfg)
    assert cfg == before


def test_a_loss_registered_later_gets_its_node_from_another_call(monkeypatch):
    cfg = added()
    loss = DISTILL_LOSS_REGISTRY.get("PD")
    monkeypatch.setitem(DISTILL_LOSS_REGISTRY._obj_map, "Later", loss)
    add_fakd_config(cfg)
    assert cfg.KD.Later == cfg.KD.PD and cfg.KD.Later is not cfg.KD.PD


def test_the_config_survives_being_written_and_read(tmp_path):
    cfg = added()
    (tmp_path / "config.yaml").write_text(cfg.dump())
    again = added()
    again.merge_from_file(str(tmp_path / "config.yaml"))
    assert json.dumps(again) == json.dumps(cfg)  # in which tuples are lists


@pytest.mark.parametrize("name", [name for name, _ in DISTILL_LOSS_REGISTRY])
def test_options_are_plain_values(name):
    node = added().KD[name]
    assert isinstance(node, CfgNode)
    for key, value in node.items():
        assert key == key.upper().rstrip("_")
        assert type(value) in (bool, int, float, str, tuple), f"KD.{name}.{key}"


def test_detectron2_s_own_keys_are_still_there():
    plain, cfg = get_cfg(), added()
    assert set(plain) <= set(cfg)
    assert set(plain.SOLVER) <= set(cfg.SOLVER)
    assert set(plain.MODEL) <= set(cfg.MODEL)
