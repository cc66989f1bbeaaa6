"""Convolutions in int8's rounding beside integers, and which maps are rounded."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from material import small_segmentor
from timm.layers import StdConv2d, convert_sync_batchnorm
from torch import nn

from fakd.config import load_config
from fakd.deploy.network import exportable
from fakd.modeling.build import build_segmentor
from fakd.modeling.quantized import (
    ActivationRange,
    QuantizedConv,
    begin,
    check_ranges,
    convolutions,
    prepare,
    scales_of,
)

SIZE = (48, 64)


def prepared(*float_layers, weight_bits=8, **options):
    network = small_segmentor(**options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics and factors that matter
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    prepare(network, SIZE, float_layers, weight_bits)
    return network


def observed(network, images):
    """In int8, its ranges those of some images."""
    begin(network)
    for module in network.modules():
        if isinstance(module, ActivationRange):
            module.train()
    with torch.no_grad():
        network.encode(images)
    return network.eval()


@pytest.fixture
def images():
    coarse = torch.rand(2, 3, 6, 8)
    return 255 * F.interpolate(coarse, SIZE, mode="bilinear")


def test_a_range_is_a_moving_average_whose_gradient_ends_outside():
    module = ActivationRange()
    assert not module.known
    module.begin()
    x = torch.linspace(-1, 3, 1000, requires_grad=True)
    torch.testing.assert_close(module(x), x, rtol=0, atol=4 / 255)
    assert module.known and (module.low.item(), module.high.item()) == (-1, 3)
    module.begin()  # what is known stays
    y = module(torch.tensor([-1.0, 13.0, 5.0]).requires_grad_())
    assert module.high.item() == pytest.approx(0.99 * 3 + 0.01 * 13)
    assert y[1].item() == y[2].item() == pytest.approx(module.high.item(), abs=0.02)
    far = torch.tensor([-9.0, 0.5, 9.0], requires_grad=True)
    module(far).sum().backward()
    assert far.grad.tolist() == [0, 1, 0]
    module.eval()
    low = module.low.clone()
    module(torch.tensor([-50.0]))
    assert module.low == low


def test_nothing_changes_before_the_beginning(images):
    plain = small_segmentor().eval()
    network = copy.deepcopy(plain)
    prepare(network, SIZE)
    assert set(plain.state_dict()) < set(network.state_dict())
    with torch.no_grad():
        assert torch.equal(network.encode(images).logits, plain.encode(images).logits)
    network.train()
    assert all(m.training for m in network.modules() if isinstance(m, nn.BatchNorm2d))


def test_in_int8_is_near_and_folds_the_norms(images):
    network = prepared().eval()
    with torch.no_grad():
        exact = network.encode(images).logits
        rounded = observed(network, images).encode(images).logits
        begin(network, lambda name: False)
        torch.testing.assert_close(network.encode(images).logits, exact)
    error = (rounded - exact).abs().max() / exact.abs().max()
    assert 1e-4 < error < 0.2
    network.train()
    frozen = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(m.training for m in frozen if m not in network.auxiliary_head.modules())


def test_norms_that_several_gpus_share_are_folded_and_frozen_as_others(images):
    plain, shared = small_segmentor(), convert_sync_batchnorm(small_segmentor())
    for network in (plain, shared):
        prepare(network, SIZE)
        observed(network, images)
    assert list(shared.state_dict()) == list(plain.state_dict())
    with torch.no_grad():
        assert torch.equal(shared.encode(images).logits, plain.encode(images).logits)
    norms = [conv.norm[0] for conv in convolutions(shared.train()).values() if conv.norm[0] is not None]
    assert norms and all(isinstance(m, nn.SyncBatchNorm) and not m.training for m in norms)


def test_weights_of_seven_bits_leave_room_for_the_sum_of_two_products(images):
    network = observed(prepared(weight_bits=7), images)
    for conv in convolutions(network).values():
        steps = conv.folded()[0].detach() / scales_of(conv.folded()[0], conv.largest).view(-1, 1, 1, 1)
        largest = steps.round().abs().amax()
        assert largest == 63 and 2 * 255 * largest < 2**15
    with torch.no_grad():
        rounded = network.encode(images).logits
        exported = exportable(copy.deepcopy(network)).encode(images).logits
    torch.testing.assert_close(exported, rounded, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("opts", [{"MODEL.BACKBONE.FREEZE": True}, {"MODEL.BACKBONE.FROZEN_STAGES": 2}])
def test_the_ranges_of_a_frozen_backbone_are_learnt(images, opts):
    network = build_segmentor(load_config("", [str(word) for item in opts.items() for word in item])).train()
    prepare(network, SIZE)
    begin(network)
    network.train()
    with torch.no_grad():
        network.encode(images)
    check_ranges(network, "these weights")
    assert not network.backbone.net.bn1.training


def test_a_convolution_equals_integers(images):
    """conv(x) = s_x s_w (sum (q_x - z) q_w + q_b), in numpy's integers."""
    conv = convolutions(observed(prepared(), images))["backbone.net.layer1.0.conv1"]
    assert conv.input_range is not None and conv.output_range is None
    x = torch.randn(1, conv.in_channels, 5, 6).double().float()
    with torch.no_grad():
        given = conv(x)
    norm = conv.norm[0]
    factor = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().numpy()
    weight = conv.weight.detach().numpy() * factor[:, None, None, None]
    bias = norm.bias.detach().numpy() - norm.running_mean.numpy() * factor
    step, zero = conv.input_range.scale.item(), conv.input_range.zero_point.item()
    steps = np.abs(weight).max((1, 2, 3)) / 127
    qx = np.clip(np.round(x.numpy() / step) + zero, 0, 255).astype(np.int64) - zero
    qw = np.round(weight / steps[:, None, None, None]).astype(np.int64)
    qb = np.round(bias / (step * steps)).astype(np.int64)
    padded = np.pad(qx, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    sums = np.einsum("nahwij,kaij->nkhw", windows, qw) + qb[None, :, None, None]
    expected = sums * (step * steps)[None, :, None, None]
    np.testing.assert_allclose(given.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_the_exported_form_computes_the_same(images):
    network = observed(prepared(), images)
    with torch.no_grad():
        ours, theirs = network.encode(images).logits, exportable(network).encode(images).logits
    assert (ours.argmax(1) == theirs.argmax(1)).float().mean() > 0.99
    assert (ours - theirs).abs().max() < 0.02 * ours.abs().max()


@pytest.mark.parametrize("signed", [False, True])
def test_the_bias_of_a_channel_without_weights_fits_in_32_bits(images, signed):
    network = observed(prepared(), images)
    conv = convolutions(network)["decode_head.conv_seg"]
    with torch.no_grad():
        conv.weight[0], conv.bias[0] = 0, 1e6 * conv.reads[0].scale.item()
        expected = network.encode(images).logits
        exported = exportable(network, signed)
        given = exported.encode(images).logits
    torch.testing.assert_close(expected[:, 0], torch.full_like(expected[:, 0], conv.bias[0].item()))
    torch.testing.assert_close(given[:, 0], expected[:, 0])
    head = exported.decode_head.conv_seg
    assert (head.bias_steps / (head.bias_scales if signed else 1)).abs().max() < 2**31 - 1


def test_each_map_is_rounded_once():
    """A ResNet's block: conv1, ReLU, conv2, and an addition, which needs conv2's output rounded."""
    found = convolutions(prepared())
    rounds = {n.removeprefix("backbone.net."): (c.input_range, c.output_range) for n, c in found.items()}
    rounds = {name: tuple(x is not None for x in pair) for name, pair in rounds.items()}
    assert rounds["layer1.0.conv1"] == (True, False)
    assert rounds["layer1.0.conv2"] == (True, True)
    assert rounds["layer2.0.downsample.0"] == (True, True)
    assert rounds["decode_head.conv_seg"] == (True, False)  # scores stay as they are
    assert all(c.norm[0] is not None for n, c in found.items() if n != "decode_head.conv_seg")
    assert not any(name.startswith("auxiliary_head") for name in found)


def test_gradients_reach_weights_and_norms(images):
    network = observed(prepared(), images).train()
    network.encode(images).logits.square().mean().backward()
    for conv in convolutions(network).values():
        assert conv.weight.grad.abs().sum() > 0
        if conv.norm[0] is not None:
            assert conv.norm[0].weight.grad.abs().sum() > 0


def test_layers_left_in_float():
    left = convolutions(prepared("backbone.net.layer1", "*.conv_seg"))
    assert left and not any("layer1" in name or "conv_seg" in name for name in left)
    with pytest.raises(ValueError, match=r"FLOAT_LAYERS: the network has no layer 'layer9'"):
        prepared("layer9")


class Halved(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) / 2


def test_what_cannot_be_int8_is_named():
    network = small_segmentor()
    network.decode_head.up = nn.ConvTranspose2d(5, 5, 1)
    with pytest.raises(ValueError, match=r"'decode_head.up' is a ConvTranspose2d; .*\['decode_head.up'\]"):
        prepare(network, SIZE)
    network = small_segmentor()
    block = network.backbone.net.layer1[1]
    block.conv2.__class__ = Halved
    with pytest.raises(ValueError, match=r"'backbone.net.layer1.1.conv2' is a Halved, which is computed"):
        prepare(network, SIZE)
    block.conv2.__class__ = nn.Conv2d
    kept = block.conv2
    for derived in (StdConv2d(4, 4, 3, padding=1), nn.utils.weight_norm(copy.deepcopy(kept))):
        block.conv2 = derived
        with pytest.raises(ValueError, match=rf"layer1.1.conv2' is a {type(derived).__name__}, which is"):
            prepare(network, SIZE)
        prepare(copy.deepcopy(network), SIZE, ["*.layer1.1.conv2"])
    block.conv2 = kept
    block.conv2 = block.conv1
    with pytest.raises(ValueError, match=r"layer1.1.conv1' is used twice, .* leaves it in float"):
        prepare(network, SIZE)
    with pytest.raises(ValueError, match="has no convolution that would be computed in int8"):
        prepare(small_segmentor(), SIZE, ["backbone", "decode_head"])


def test_unknown_ranges_are_named():
    network = prepared()
    begin(network)
    with pytest.raises(ValueError, match=r"'w.pth' was saved before .* range of 'backbone.*' is not known"):
        check_ranges(network, "w.pth")
    assert all(isinstance(conv, QuantizedConv) and conv.quantized for conv in convolutions(network).values())
