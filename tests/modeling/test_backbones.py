"""mmsegmentation's style convolution by convolution, any network of timm by name, and ImageNet weights."""

import logging

import pytest
import timm
import torch
from mit_layouts import hugging_face_mit, mmseg_mit, original_mit
from safetensors.torch import save_file
from timm.layers import convert_sync_batchnorm
from torch import nn

from fakd.modeling import TimmBackbone


def on_meta(name, **options):
    with torch.device("meta"):
        return TimmBackbone(name=name, **options)


def dilations(name, **options):
    """Of every dilated convolution, by name; every 3x3 one's padding must keep the size."""
    convs = {n: m for n, m in on_meta(name, **options).net.named_modules() if isinstance(m, nn.Conv2d)}
    assert all(m.padding == m.dilation for m in convs.values() if m.kernel_size == (3, 3))
    return {n: m.dilation[0] for n, m in convs.items() if m.dilation != (1, 1)}


def test_mobilenetv2_in_mmsegmentations_style():
    """Only a group's first block is dilated."""
    first = [f"blocks.{i}.0.conv_dw" for i in range(7)]
    assert dilations("mobilenetv2_100") == {first[3]: 2, first[4]: 2, first[5]: 4, first[6]: 4}
    assert dilations("mobilenetv2_100", output_stride=16) == {first[5]: 2, first[6]: 2}


def test_mobilenetv2_in_timms_and_cirkds_style():
    expected = {f"blocks.3.{i}.conv_dw": 2 for i in (1, 2, 3)} | {
        f"blocks.4.{i}.conv_dw": 2 for i in range(3)
    }
    expected |= {"blocks.5.0.conv_dw": 2, "blocks.6.0.conv_dw": 4}
    expected |= {f"blocks.5.{i}.conv_dw": 4 for i in (1, 2)}
    assert dilations("mobilenetv2_100", dilation_style="timm") == expected


def test_resnet18_in_both_styles():
    """mmsegmentation dilates no second convolution of a basic block; timm and CIRKD do."""
    mmseg = {"layer3.1.conv1": 2, "layer4.0.conv1": 2, "layer4.1.conv1": 4}
    second = {"layer3.0.conv2": 2, "layer3.1.conv2": 2, "layer4.0.conv2": 4, "layer4.1.conv2": 4}
    assert dilations("resnet18", stem="c") == mmseg
    assert dilations("resnet18", stem="s", dilation_style="timm") == mmseg | second


@pytest.mark.parametrize("style", ["mmseg", "timm"])
def test_resnet101_in_both_styles(style):
    expected = {f"layer3.{i}.conv2": 2 for i in range(1, 23)}
    expected |= {"layer4.0.conv2": 2, "layer4.1.conv2": 4, "layer4.2.conv2": 4}
    assert dilations("resnet101c", dilation_style=style) == expected


def test_hrnet_is_not_dilated_and_fuses_bilinearly():
    backbone = on_meta("hrnet_w18_small_v2", output_stride=32)
    upsamplings = [m for m in backbone.modules() if isinstance(m, nn.Upsample)]
    # Six branch pairs in each of 2 modules of stage 4, three in 3 of stage 3, one in 1 of stage 2.
    assert len(upsamplings) == 2 * 6 + 3 * 3 + 1
    assert all(m.mode == "bilinear" and m.align_corners is False for m in upsamplings)
    assert not dilations("hrnet_w18_small_v2", output_stride=32)


def test_hrnet_resizes_twice_at_odd_sizes():
    """Up by the integer factor, then to the exact size; one resize gives other values."""
    torch.manual_seed(0)
    backbone = TimmBackbone(name="hrnet_w18_small_v2", output_stride=32).eval()
    module = backbone.net.stage2[0]
    fine, coarse = torch.randn(1, 18, 9, 13), torch.randn(1, 36, 5, 7)
    with torch.no_grad():
        got = module([fine, coarse])[0]
        a, b = module.branches[0](fine), module.branches[1](coarse)
        up = module.fuse_layers[0][1]
        low = up[1](up[0](b))
        twice = nn.functional.interpolate(low, scale_factor=2, mode="bilinear", align_corners=False)
        assert twice.shape[-2:] == (10, 14)
        twice = nn.functional.interpolate(twice, size=(9, 13), mode="bilinear", align_corners=False)
        once = nn.functional.interpolate(low, size=(9, 13), mode="bilinear", align_corners=False)
    torch.testing.assert_close(got, (a + twice).relu())
    assert (got - (a + once).relu()).abs().max() > 1e-3


@pytest.mark.parametrize(
    "name, output_stride, channels, strides",
    [
        ("resnet34", 16, [64, 128, 256, 512], [4, 8, 16, 16]),
        ("mobilenetv2_100", 8, [24, 32, 96, 320], [4, 8, 8, 8]),
        ("mobilenetv3_large_100", 8, [24, 40, 112, 960], [4, 8, 8, 8]),
        ("hrnet_w18_small_v2", 32, [18, 36, 72, 144], [4, 8, 16, 32]),
        ("convnext_atto", 8, [40, 80, 160, 320], [4, 8, 8, 8]),
        ("pvt_v2_b0", 32, [32, 64, 160, 256], [4, 8, 16, 32]),
        ("mit_b1", 32, [64, 128, 320, 512], [4, 8, 16, 32]),
        ("vgg11", 32, [256, 512, 512, 512], [4, 8, 16, 32]),
    ],
)
def test_shapes_are_those_of_the_maps(name, output_stride, channels, strides):
    backbone = on_meta(name, output_stride=output_stride).eval()
    shapes = backbone.output_shape()
    assert list(shapes) == ["res2", "res3", "res4", "res5"]
    assert [s.channels for s in shapes.values()] == channels
    assert [s.stride for s in shapes.values()] == strides
    for key, x in backbone(torch.empty(1, 3, 64, 96, device="meta")).items():
        stride = shapes[key].stride
        assert x.shape == (1, shapes[key].channels, 64 // stride, 96 // stride), key


def test_channels_last_networks_are_turned():
    options = ("strict_img_size", False)
    backbone = on_meta("swin_tiny_patch4_window7_224", output_stride=32, options=options).eval()
    maps = backbone(torch.empty(1, 3, 64, 96, device="meta"))
    assert maps["res2"].shape == (1, 96, 16, 24) and maps["res5"].shape == (1, 768, 2, 3)


def test_a_network_that_cannot_be_dilated_keeps_its_strides_and_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        backbone = on_meta("pvt_v2_b0", output_stride=8)
    assert [s.stride for s in backbone.output_shape().values()] == [4, 8, 16, 32]
    assert "pvt_v2_b0" in caplog.text and "MODEL.BACKBONE.OUTPUT_STRIDE" in caplog.text


def test_an_unknown_name_is_an_error_with_near_ones():
    with pytest.raises(ValueError, match="MODEL.BACKBONE.TIMM_NAME.*resnet18x.*Near: "):
        TimmBackbone(name="resnet18x")


def test_converting_batch_norm_for_several_processes_keeps_the_activations():
    """torch's own converter replaces timm's norm-and-activation layers by norms alone."""
    torch.manual_seed(0)
    backbone = TimmBackbone(name="mobilenetv2_100").eval()
    images = torch.randn(1, 3, 33, 33)
    before = backbone(images)
    converted = convert_sync_batchnorm(backbone)
    assert any(isinstance(m, nn.SyncBatchNorm) for m in converted.modules())
    assert all(torch.equal(before[k], x) for k, x in converted(images).items())


def test_no_weights_are_said_to_be_random(caplog):
    with caplog.at_level(logging.INFO):
        on_meta("resnet18")
    assert "resnet18 has random weights" in caplog.text


def test_weights_by_path_of_timm_mmsegmentation_and_cirkd(tmp_path, caplog):
    stems = {
        "timm": {},
        "mmseg": {"conv1.0": "stem.0", "conv1.1": "stem.1", "conv1.3": "stem.3", "conv1.4": "stem.4"}
        | {"conv1.6": "stem.6", "bn1": "stem.7"},
        "cirkd": {"conv1.0": "conv1", "conv1.1": "bn1", "conv1.3": "conv2", "conv1.4": "bn2"}
        | {"conv1.6": "conv3", "bn1": "bn3"},
    }
    state = timm.create_model("resnet18", stem_type="deep", stem_width=32, num_classes=3).state_dict()
    for layout, names in stems.items():
        renamed = {}
        for key, value in state.items():
            module, _, leaf = key.rpartition(".")
            renamed[f"{names.get(module, module)}.{leaf}"] = value
        path = tmp_path / f"{layout}.pth"
        torch.save({"state_dict": renamed, "meta": {}} if layout == "mmseg" else renamed, path)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            backbone = TimmBackbone(name="resnet18", stem="c", pretrained=str(path))
        assert "not used: fc.weight, fc.bias" in caplog.text
        assert all(torch.equal(v, state[k]) for k, v in backbone.net.state_dict().items())


def test_dotted_names_of_timms_files_are_found(tmp_path):
    net = timm.create_model("convnext_atto", num_classes=2)
    torch.save(net.state_dict(), tmp_path / "w.pth")
    backbone = TimmBackbone(name="convnext_atto", pretrained=str(tmp_path / "w.pth"))
    assert torch.equal(backbone.net.stages_3.blocks[1].conv_dw.weight, net.stages[3].blocks[1].conv_dw.weight)


def test_a_file_of_another_network_is_refused(tmp_path):
    torch.save(timm.create_model("resnet18", num_classes=2).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"PRETRAINED.*w\.pth.*lacks \d+ weights"):
        TimmBackbone(name="resnet34", pretrained=str(tmp_path / "w.pth"))
    with pytest.raises(ValueError, match="have another shape"):
        TimmBackbone(name="resnet18", width=0.5, pretrained=str(tmp_path / "w.pth"))
    with pytest.raises(FileNotFoundError, match="PRETRAINED.*nowhere"):
        TimmBackbone(name="resnet18", pretrained=str(tmp_path / "nowhere.pth"))


def test_timm_has_no_deep_stem_resnet18():
    with pytest.raises(ValueError, match="MODEL.BACKBONE.PRETRAINED.*resnet18_v1c"):
        TimmBackbone(name="resnet18", stem="c", pretrained="timm")


def test_offline_the_file_to_fetch_and_the_key_are_named(monkeypatch):
    create = timm.create_model

    def unreachable(name, pretrained=False, **options):
        if pretrained:
            raise OSError("no network")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(ValueError, match=r"(?s)timm/resnet18.*MODEL\.BACKBONE\.PRETRAINED"):
        TimmBackbone(name="resnet18", pretrained="timm")


def test_a_mit_has_one_epsilon_in_mmsegmentations_style_and_its_authors_in_the_other():
    def epsilons(style):
        backbone = on_meta("mit_b0", output_stride=32, dilation_style=style)
        return {n: m.eps for n, m in backbone.net.named_modules() if isinstance(m, nn.LayerNorm)}

    assert set(epsilons("mmseg").values()) == {1e-6}
    own = {n for n, eps in epsilons("timm").items() if eps == 1e-5}
    embeddings = {"patch_embed.norm", *(f"stages_{i}.downsample.norm" for i in (1, 2, 3))}
    # Behind the convolution that shrinks keys and values; the last stage has none.
    assert own == embeddings | {f"stages_{i}.blocks.{j}.attn.norm" for i in range(3) for j in range(2)}


def test_the_hub_s_mit_is_loaded_under_timms_names(tmp_path):
    """Every weight but the classifier's, from a file as the hub has it."""
    torch.manual_seed(0)
    options = {"output_stride": 32}
    state = TimmBackbone(name="mit_b0", **options).net.state_dict()
    theirs = {f"segformer.{k}": v for k, v in hugging_face_mit(state).items()}
    theirs["classifier.weight"] = torch.ones(1000, 256)
    file = str(tmp_path / "model.safetensors")
    save_file({k: v.clone() for k, v in theirs.items()}, file)
    overlay = {"file": file, "hf_hub_id": None}
    net = timm.create_model("mit_b0", features_only=True, pretrained=True, pretrained_cfg_overlay=overlay)
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert timm.get_pretrained_cfg("mit_b0").hf_hub_id == "nvidia/mit-b0"
    # The same by path.
    backbone = TimmBackbone(name="mit_b0", pretrained=file, **options)
    assert all(torch.equal(v, state[k]) for k, v in backbone.net.state_dict().items())


def test_the_files_of_segformers_authors_and_of_mmsegmentation_are_loaded_by_path(tmp_path, caplog):
    torch.manual_seed(0)
    state = TimmBackbone(name="mit_b0", output_stride=32).net.state_dict()
    classifier = {"head.weight": torch.ones(1000, 256), "head.bias": torch.ones(1000)}
    torch.save(original_mit(state) | classifier, tmp_path / "mit_b0.pth")
    torch.save(mmseg_mit(state), tmp_path / "mmseg.pth")
    for file in ("mit_b0.pth", "mmseg.pth"):
        with caplog.at_level(logging.INFO):
            backbone = TimmBackbone(name="mit_b0", output_stride=32, pretrained=str(tmp_path / file))
        assert all(torch.equal(v, state[k]) for k, v in backbone.net.state_dict().items())
    assert "not used: head.weight, head.bias" in caplog.text
    with pytest.raises(ValueError, match="lacks"):
        TimmBackbone(name="mit_b2", output_stride=32, pretrained=str(tmp_path / "mit_b0.pth"))
