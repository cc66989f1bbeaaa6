"""Forms of a teacher that cost less: they give the same maps, for every architecture of the configs."""

import copy
from pathlib import Path

import pytest
import torch
from material import small_segmentor
from timm.layers import BatchNormAct2d
from torch import nn

from fakd.config import load_config
from fakd.config.defaults import KEYS
from fakd.modeling.build import build_segmentor
from fakd.modeling.fast_teacher import FORMS, agreement, fold_batch_norm, half_of, in_form
from fakd.modeling.teacher import FrozenTeacher

MODELS = Path(__file__).parents[2] / "configs" / "_base_" / "models"
# Built of the layers of others, but large.
LARGE = {
    "cirkd_deeplabv3_r101",
    "cirkd_segformer_b4",
    "deeplabv3_r101",
    "hrnet_w48",
    "isanet_r101",
    "pspnet_r101",
    "segformer_b4",
}
EXACT = ("fold", "channels_last")


def trained(network):
    """With statistics of its own maps and random affine parameters, as after a training; in eval mode."""
    torch.manual_seed(1)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
    with torch.no_grad():
        network.train().encode(images())
    return network.eval()


def images(side=64, n=2):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0)) * 255


def norms_of(network):
    heads = network.backbone, network.decode_head
    return [m for part in heads for m in part.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize("name", sorted(p.stem for p in MODELS.glob("*.yaml") if p.stem not in LARGE))
def test_every_network_computes_the_same_in_a_fast_form(name):
    opts = ["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.PRETRAINED", "none"]
    if name.endswith(("_r18", "_r50")):
        opts += ["MODEL.BACKBONE.WIDTH", 0.25, "MODEL.SEM_SEG_HEAD.CHANNELS", 32]
    network = trained(build_segmentor(load_config(str(MODELS / f"{name}.yaml"), opts)))
    plain = FrozenTeacher(network, "RGB")
    fast = FrozenTeacher(network, "RGB")
    fast.take_form(EXACT)
    assert norms_of(network) and not norms_of(fast.network)
    expected, found = plain.encode(images()), fast.encode(images())
    torch.testing.assert_close(found.weight, expected.weight)
    maps = [(found.logits, expected.logits), (found.feature, expected.feature)]
    for got, wanted in [*maps, *((found.stages[k], expected.stages[k]) for k in expected.stages)]:
        assert got.dtype == torch.float32 and got.shape == wanted.shape
        assert agreement(got, wanted)[1] < 1e-3
    assert agreement(found.logits, expected.logits)[0] >= 0.999


@pytest.mark.parametrize("frozen", [("FROZEN_STAGES", 2), ("FREEZE", True)])
def test_what_is_frozen_is_folded_too(frozen):
    key, value = frozen
    opts = ["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.PRETRAINED", "none", f"MODEL.BACKBONE.{key}", value]
    network = trained(build_segmentor(load_config("configs/camvid_pretrained/third_teacher.yaml", opts)))
    fast = in_form(network, EXACT)
    assert not norms_of(fast) and not any(part.training for part in fast.modules())
    assert agreement(fast.encode(images()).logits, network.encode(images()).logits)[1] < 1e-3


@pytest.mark.parametrize(
    "form", [("fold",), ("channels_last",), ("fold", "bf16"), ("fold", "channels_last", "bf16")]
)
def test_a_form_leaves_the_network_it_was_made_of_alone(form):
    network = trained(small_segmentor())
    before = copy.deepcopy(network.state_dict())
    fast = in_form(network, form)
    assert fast.auxiliary_head is None and network.auxiliary_head is not None
    assert fast.spec.feature_channels == network.spec.feature_channels
    assert {p.dtype for p in fast.parameters()} == {half_of(form) or torch.float32}
    assert not any(p.requires_grad for p in fast.parameters())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_half_precision_is_near_and_its_maps_come_back_in_float32():
    teacher = FrozenTeacher(trained(small_segmentor()), "BGR")
    expected = teacher.encode(images())
    teacher.take_form(("fold", "channels_last", "bf16"))
    found = teacher.encode(images()).float()
    assert {x.dtype for x in (found.logits, found.feature, found.weight, *found.stages.values())} == {
        torch.float32
    }
    same, error = agreement(found.logits, expected.logits)
    assert same > 0.9 and 0 < error < 0.1


def test_half_precision_does_not_mix_with_autocast():
    teacher = FrozenTeacher(trained(small_segmentor()), "RGB")
    teacher.take_form(("fold", "bf16"))
    alone = teacher.encode(images())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(teacher.encode(images()).logits, alone.logits)


def test_the_activation_inside_a_batch_norm_is_kept():
    block = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), BatchNormAct2d(8), nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4)
    )
    nn.init.uniform_(block[1].running_mean)
    folded = copy.deepcopy(block).eval()
    assert fold_batch_norm(folded) == 2
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(folded(x), block.eval()(x), rtol=1e-4, atol=1e-5)


def test_a_batch_norm_of_something_else_stays():
    block = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1), nn.BatchNorm2d(8)
    )
    assert fold_batch_norm(block.eval()) == 0


def test_a_scale_that_leaves_no_pixel_is_refused_by_its_key():
    teacher = FrozenTeacher(trained(small_segmentor()), "RGB", scale=0.01)
    with pytest.raises(ValueError, match="KD.TEACHER.SCALE is 0.01, .* of 64x64: choose at least 0.016"):
        teacher.encode(images())


def test_a_smaller_teacher_sees_the_same_pictures_smaller():
    network = trained(small_segmentor())
    half = FrozenTeacher(network, "RGB", scale=0.5)
    checks = torch.rand(2, 3, 33, 33).mul(255).repeat_interleave(2, 2).repeat_interleave(2, 3)
    seen = []
    network.backbone.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    found = half.encode(checks)
    assert seen[0].shape == (2, 3, 33, 33)
    assert found.logits.shape == FrozenTeacher(network, "RGB").encode(checks[..., ::2, ::2]).logits.shape
    # Away from edges of the chequerboard: the mean of a patch of 2x2 equal pixels and its neighbours.
    assert torch.corrcoef(torch.stack([seen[0].flatten(), seen[1].flatten()]))[0, 1] > 0.9


def test_every_form_is_a_value_of_the_key():
    assert set(KEYS["KD.TEACHER.FAST"].range.choices) == {"auto", "off", *FORMS}
