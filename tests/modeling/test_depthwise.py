"""Depthwise convolutions in float32 under autocast on a CPU."""

import copy

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from fakd.modeling import TimmBackbone
from fakd.modeling.depthwise import keep_depthwise_in_float32


def test_only_depthwise_convolutions_leave_autocast():
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 3, groups=2))
    names = list(network.state_dict())
    assert keep_depthwise_in_float32(network) == 1 and list(network.state_dict()) == names
    dtypes = []
    for conv in network:
        conv.register_forward_hook(lambda m, x, y: dtypes.append(y.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        network(torch.rand(1, 3, 9, 9))
    assert dtypes == [torch.bfloat16, torch.float32, torch.bfloat16]


@pytest.mark.parametrize("kind", [nn.Conv2d, Conv2dSame])
def test_without_autocast_nothing_changes(kind):
    conv = kind(8, 8, 3, stride=2, groups=8)
    kept = nn.Sequential(copy.deepcopy(conv))
    assert keep_depthwise_in_float32(kept) == keep_depthwise_in_float32(kept) == 1
    assert isinstance(kept[0], kind)
    x = torch.rand(2, 8, 10, 11)
    assert torch.equal(kept(x), conv(x))
    assert torch.equal(copy.deepcopy(kept).double()(x.double()), conv.double()(x.double()))


def test_gradients_under_autocast_are_those_of_float32():
    conv = nn.Conv2d(4, 4, 3, groups=4)
    kept = copy.deepcopy(conv)
    keep_depthwise_in_float32(kept)
    x = torch.randn(2, 4, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        kept(x).square().sum().backward()
    conv(x).square().sum().backward()
    assert torch.equal(kept.weight.grad, conv.weight.grad)


def test_a_network_s_depthwise_convolutions_are_all_found():
    backbone = TimmBackbone(name="tf_efficientnet_lite0", output_stride=32)
    assert keep_depthwise_in_float32(backbone) == 16  # one per block
