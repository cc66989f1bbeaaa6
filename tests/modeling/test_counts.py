"""The networks of configs/_base_/models have the published size, to the last printed digit."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fakd.config import load_config
from fakd.modeling import Segmentor

# Millions of parameters in backbone, head and auxiliary head; keys; 10^9 multiply-adds of convolutions and
# matrix products for 512x512 and 19 classes, without the auxiliary head.
MMSEG = {
    "pspnet_r101": (42.519, 23.084, 2.365, 676, 255.90),
    "pspnet_r18": (11.196, 1.446, 0.149, 172, 54.23),
    "hrnet_w48": (65.325, 0.534, 0, 1838, 93.44),
    "hrnet_w18s": (3.861, 0.079, 0, 872, 9.61),
    "deeplabv3plus_r101": (42.519, 17.698, 2.365, 730, 253.74),
    "deeplabv3plus_mbv2": (1.812, 13.206, 0.227, 400, 68.04),
    "isanet_r101": (42.519, 11.815, 2.365, 722, 227.26),
    "isanet_r18": (11.196, 1.089, 0.149, 218, 54.02),
    "deeplabv3_r101": (42.519, 42.221, 2.365, 682, 347.12),
    "deeplabv3_r18": (11.196, 2.642, 0.149, 178, 59.93),
    "deeplabv3_mbv2": (1.812, 16.564, 0.227, 352, 74.82),
    "segformer_b0": (3.319, 0.401, 0, 208, 7.84),
    "segformer_b4": (60.843, 0.532, 0, 864, 58.36),
}
# Millions of parameters in all, and in the auxiliary head.
CIRKD = {
    "cirkd_deeplabv3_r101": (79.084, 2.365),
    "cirkd_deeplabv3_r18": (22.763, 0.149),
    "cirkd_pspnet_r18": (12.919, 0.149),
    "cirkd_deeplabv3_mbv2": (3.233, 0),
    "cirkd_pspnet_mbv2": (2.655, 0),
}
# Millions of parameters and 10^9 multiply-adds for 512x512 and 150 classes: Xie et al. 2021, Table 1a; CIRKD
# took over their head.
SEGFORMER = {"cirkd_segformer_b0": (3.8, 8.4), "cirkd_segformer_b4": (64.1, 95.7)}


def build(name, num_classes=19):
    """On the meta device: shapes without values, so that the largest takes no memory."""
    options = ["MODEL.DEVICE", "cpu", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", str(num_classes)]
    with torch.device("meta"):
        return Segmentor(load_config(f"configs/_base_/models/{name}.yaml", options)).eval()


def millions(module):
    return round(sum(p.numel() for p in module.parameters()) / 1e6, 3) if module is not None else 0


@pytest.mark.parametrize("name", MMSEG)
def test_parameters_and_keys(name):
    network = build(name)
    parts = (network.backbone, network.decode_head, network.auxiliary_head)
    assert (*map(millions, parts), len(network.state_dict())) == MMSEG[name][:4]


@pytest.mark.parametrize("name", CIRKD)
def test_parameters_of_cirkds_networks(name):
    network = build(name)
    assert (millions(network), millions(network.auxiliary_head)) == CIRKD[name]


@pytest.mark.parametrize("name", MMSEG)
def test_operations(name):
    assert round(operations(build(name)), 2) == MMSEG[name][4]


def operations(network):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.encode_normalized(torch.empty(1, 3, 512, 512, device="meta"))
    return counter.get_total_flops() / 2e9


@pytest.mark.parametrize("name", SEGFORMER)
def test_segformers_are_as_large_as_published(name):
    network = build(name, num_classes=150)
    parameters, multiply_adds = SEGFORMER[name]
    assert round(millions(network), 1) == parameters
    assert operations(network) == pytest.approx(multiply_adds, rel=0.002)
