"""Strides, channels and the dilation of every convolution, by name."""

import pytest
import torch
from torch import nn

from fakd.modeling import TimmBackbone


def dilations(name, style, output_stride=8, **options):
    """{convolution: dilation} of those whose kernel is larger than 1, and the backbone."""
    backbone = TimmBackbone(name=name, output_stride=output_stride, dilation_style=style, **options)
    convs = {
        key: conv.dilation[0]
        for key, conv in backbone.net.named_modules()
        if isinstance(conv, nn.Conv2d) and conv.kernel_size[0] > 1
    }
    return convs, backbone


def dilated(convs, but=()):
    return {key: d for key, d in convs.items() if d != 1 and key not in but}


@pytest.mark.parametrize(
    "output_stride, strides", [(8, [4, 8, 8, 8]), (16, [4, 8, 16, 16]), (32, [4, 8, 16, 32])]
)
@pytest.mark.parametrize(
    "name, channels", [("resnet18", [64, 128, 256, 512]), ("resnet50", [256, 512, 1024, 2048])]
)
def test_strides_and_channels_are_those_of_the_maps(name, channels, output_stride, strides):
    with torch.device("meta"):
        backbone = TimmBackbone(name=name, output_stride=output_stride).eval()
        maps = backbone(torch.empty(1, 3, 64, 96))
    shapes = backbone.output_shape()
    assert list(maps) == list(shapes) == ["res2", "res3", "res4", "res5"]
    assert [shape.stride for shape in shapes.values()] == strides
    assert [shape.channels for shape in shapes.values()] == channels
    for key, shape in shapes.items():
        assert maps[key].shape == (1, shape.channels, 64 // shape.stride, 96 // shape.stride)


def test_dilation_of_resnet18():
    """timm dilates both convolutions of a basic block, mmsegmentation the first alone."""
    timm, _ = dilations("resnet18", "timm")
    assert dilated(timm) == {
        "layer3.0.conv2": 2,
        "layer3.1.conv1": 2,
        "layer3.1.conv2": 2,
        "layer4.0.conv1": 2,
        "layer4.0.conv2": 4,
        "layer4.1.conv1": 4,
        "layer4.1.conv2": 4,
    }
    mmseg, backbone = dilations("resnet18", "mmseg")
    assert dilated(mmseg) == {"layer3.1.conv1": 2, "layer4.0.conv1": 2, "layer4.1.conv1": 4}
    for conv in backbone.net.modules():
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
            assert conv.padding == conv.dilation, "maps must keep their size"


def test_dilation_of_resnet50_is_one():
    """The 3x3 convolution of a bottleneck is dilated alike in both; the first of a stage by half."""
    expected = {f"layer3.{i}.conv2": 2 for i in range(1, 6)}
    expected |= {"layer4.0.conv2": 2, "layer4.1.conv2": 4, "layer4.2.conv2": 4}
    for style in ("mmseg", "timm"):
        convs, _ = dilations("resnet50", style)
        assert dilated(convs) == expected


def test_output_stride_16_and_32():
    assert dilated(dilations("resnet18", "mmseg", 16)[0]) == {"layer4.1.conv1": 2}
    assert dilated(dilations("resnet18", "mmseg", 32)[0]) == {}


def test_both_styles_have_the_same_weights_and_differ_in_what_they_compute():
    torch.manual_seed(0)
    mmseg = TimmBackbone(name="resnet18", width=0.0625).eval()
    timm = TimmBackbone(name="resnet18", width=0.0625, dilation_style="timm").eval()
    for module in mmseg.modules():
        if isinstance(module, nn.BatchNorm2d):  # timm starts the last of a block at 0, which hides its input
            nn.init.ones_(module.weight)
    timm.load_state_dict(mmseg.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        a, b = mmseg(x), timm(x)
    assert torch.equal(a["res3"], b["res3"])
    assert a["res5"].shape == b["res5"].shape and not torch.allclose(a["res5"], b["res5"])


def test_a_width_scales_every_map():
    backbone = TimmBackbone(name="resnet18", width=0.125)
    assert [shape.channels for shape in backbone.output_shape().values()] == [8, 16, 32, 64]


@pytest.mark.parametrize("stem, widths", [("c", [32, 32, 64]), ("s", [64, 64, 128])])
def test_deep_stems(stem, widths):
    with torch.device("meta"):
        backbone = TimmBackbone(name="resnet18", stem=stem)
    convs = [m for m in backbone.net.conv1 if isinstance(m, nn.Conv2d)]
    assert [conv.out_channels for conv in convs] == widths
    assert [conv.stride[0] for conv in convs] == [2, 1, 1]


@pytest.mark.parametrize(
    "options, key",
    [
        ({"dilation_style": "other"}, "MODEL.BACKBONE.DILATION_STYLE"),
        ({"stem": "other"}, "MODEL.BACKBONE.STEM"),
    ],
)
def test_an_unknown_choice_names_its_key(options, key):
    with pytest.raises(ValueError, match=key):
        TimmBackbone(name="resnet18", **options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("bogus", 2), "with which timm cannot build resnet18: .*bogus"),
        (("in_chans", 7), "in_chans 7, .* 3 channels"),
    ],
)
def test_arguments_that_timm_does_not_take_name_their_key(options, told):
    with pytest.raises(ValueError, match=f"MODEL.BACKBONE.TIMM_OPTIONS .*{told}"):
        TimmBackbone(name="resnet18", options=options)


def test_weights_of_a_file_must_be_of_the_network(tmp_path):
    backbone = TimmBackbone(name="resnet18", width=0.0625)
    state = backbone.net.state_dict()
    torch.save(state, tmp_path / "own.pth")
    loaded = TimmBackbone(name="resnet18", width=0.0625, pretrained=str(tmp_path / "own.pth"))
    assert all(torch.equal(value, state[key]) for key, value in loaded.net.state_dict().items())
    torch.save(dict(list(state.items())[10:]), tmp_path / "part.pth")
    with pytest.raises(ValueError, match=r"part\.pth"):
        TimmBackbone(name="resnet18", width=0.0625, pretrained=str(tmp_path / "part.pth"))


@pytest.mark.parametrize(
    "name, end",
    [
        ("resnet18", "net.layer2.1.bn2.bias"),
        ("tf_efficientnet_lite0", "net.blocks.2.1.bn3.bias"),
        ("mit_b0", "net.stages_1.norm.bias"),
        ("test_vit", "net.model.blocks.1.mlp.fc2.bias"),
    ],
)
def test_frozen_stages_keep_weights_and_statistics_and_need_no_backward_pass(name, end):
    backbone = TimmBackbone(name=name, output_stride=32, frozen_stages=2).train()
    names = [key for key, _ in backbone.named_parameters()]
    frozen = [key for key, weight in backbone.named_parameters() if not weight.requires_grad]
    assert frozen[-1] == end and frozen == names[: names.index(end) + 1]

    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    maps = list(backbone(torch.rand(2, 3, 160, 160)).values())
    maps[-1].sum().backward()
    assert name == "test_vit" or [map_.requires_grad for map_ in maps] == [False, False, True, True]
    torch.optim.SGD([w for w in backbone.parameters() if w.requires_grad], lr=1.0).step()
    changed = {key for key, value in backbone.state_dict().items() if not torch.equal(value, before[key])}
    statistics = {key for key in changed if "running_" in key or "num_batches" in key}
    first = names[len(frozen)].rsplit(".", 1)[0]
    keys = list(before)
    assert (
        changed
        and min(map(keys.index, changed)) >= keys.index(first + ".weight")
        and (not any("running_mean" in key for key in keys) or statistics)
    )


def test_more_frozen_stages_than_there_are_name_the_key_that_freezes_all():
    with pytest.raises(ValueError, match="FROZEN_STAGES is 3, but test_vit gives 3.*MODEL.BACKBONE.FREEZE"):
        TimmBackbone(name="test_vit", output_stride=32, frozen_stages=3)


def test_a_network_whose_stages_are_not_layers_cannot_freeze_some():
    with pytest.raises(ValueError, match="FROZEN_STAGES: timm does not say where the stage .* of HighRes"):
        TimmBackbone(name="hrnet_w18_small", output_stride=32, frozen_stages=1)
