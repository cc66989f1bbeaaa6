"""Checkpoints of other projects, under names written down from their layout, become this project's."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
import yaml
from mit_layouts import hugging_face_mit, mmseg_mit, original_mit

from fakd.checkpoint import load_teacher, zoo
from fakd.checkpoint.convert import check_fit, convert
from fakd.config import load_config
from fakd.modeling import Segmentor

SMALL = "MODEL.DEVICE cpu MODEL.SEM_SEG_HEAD.NUM_CLASSES 3 MODEL.SEM_SEG_HEAD.CHANNELS 8".split()
BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def norm(ours, theirs):
    return {f"{ours}.{leaf}": f"{theirs}.{leaf}" for leaf in BN}


def conv_norm(ours, theirs):
    """A convolution without bias and its norm, in pairs (conv, norm) of names."""
    return {f"{ours[0]}.weight": f"{theirs[0]}.weight"} | norm(ours[1], theirs[1])


def mmseg_resnet18(shortcuts=(2, 3, 4)):
    """{our key: mmsegmentation's} of a deep-stem ResNet-18."""
    names = {}
    for conv, bn, timm_bn in ((0, 1, "conv1.1"), (3, 4, "conv1.4"), (6, 7, "bn1")):
        ours = (f"backbone.net.conv1.{conv}", f"backbone.net.{timm_bn}")
        names |= conv_norm(ours, (f"backbone.stem.{conv}", f"backbone.stem.{bn}"))
    for layer in (1, 2, 3, 4):
        for block in (0, 1):
            pairs = [("conv1", "bn1"), ("conv2", "bn2")]
            if layer in shortcuts and block == 0:
                pairs.append(("downsample.0", "downsample.1"))
            for pair in pairs:
                at = [f"layer{layer}.{block}.{x}" for x in pair]
                names |= conv_norm([f"backbone.net.{x}" for x in at], [f"backbone.{x}" for x in at])
    return names


def mmseg_mobilenetv2():
    """{our key: mmsegmentation's}; its layers count from 1 and its convolutions in their order."""
    names = conv_norm(
        ("backbone.net.conv_stem", "backbone.net.bn1"), ("backbone.conv1.conv", "backbone.conv1.bn")
    )
    for stage, blocks in enumerate((1, 2, 3, 4, 3, 3, 1)):
        for block in range(blocks):
            convs = ["conv_dw", "conv_pw"] if stage == 0 else ["conv_pw", "conv_dw", "conv_pwl"]
            for i, conv in enumerate(convs):
                ours = f"backbone.net.blocks.{stage}.{block}"
                theirs = f"backbone.layer{stage + 1}.{block}.conv.{i}"
                names |= conv_norm(
                    (f"{ours}.{conv}", f"{ours}.bn{i + 1}"), (f"{theirs}.conv", f"{theirs}.bn")
                )
    return names


def same(module):
    return conv_norm((f"{module}.conv", f"{module}.bn"), (f"{module}.conv", f"{module}.bn"))


def classifier(head):
    return {f"{head}.conv_seg.{leaf}": f"{head}.conv_seg.{leaf}" for leaf in ("weight", "bias")}


def heads(*modules):
    names = classifier("decode_head") | classifier("auxiliary_head") | same("auxiliary_head.convs.0")
    for module in modules:
        names |= same(f"decode_head.{module}")
    return names


def separable(module):
    return [f"{module}.depthwise_conv", f"{module}.pointwise_conv"]


ATTENTION = [
    f"{relation}.{part}"
    for relation in ("global_relation", "local_relation")
    for part in ("query_project.0", "query_project.1", "key_project.0", "key_project.1", "output_project")
]
VALUES = {
    name: name
    for relation in ("global", "local")
    for leaf in ("weight", "bias")
    for name in [f"decode_head.{relation}_relation.value_project.{leaf}"]
}
BRANCHES = [f"aspp_modules.{i}" for i in range(4)]
SEPARABLE = [name for i in (1, 2, 3) for name in separable(f"aspp_modules.{i}")]
LAYOUTS = {
    "pspnet_r18": mmseg_resnet18() | heads(*(f"psp_modules.{i}.1" for i in range(4)), "bottleneck"),
    "deeplabv3_r18": mmseg_resnet18() | heads("image_pool.1", *BRANCHES, "bottleneck"),
    "isanet_r18": mmseg_resnet18() | heads("in_conv", "out_conv", *ATTENTION) | VALUES,
    "deeplabv3_mbv2": mmseg_mobilenetv2() | heads("image_pool.1", *BRANCHES, "bottleneck"),
    "deeplabv3plus_mbv2": mmseg_mobilenetv2()
    | heads("image_pool.1", "aspp_modules.0", *SEPARABLE, "bottleneck", "c1_bottleneck")
    | heads(*separable("sep_bottleneck.0"), *separable("sep_bottleneck.1")),
}


def linear_head(ours, where, fuse, norm, classifier):
    """The head of a SegFormer with linear layers: matrices, the coarsest map first where they are joined."""
    theirs = {}
    for key, value in ours.items():
        if key.startswith("convs."):
            _, index, leaf = key.split(".")
            value = value[..., 0, 0] if leaf == "weight" else value
            theirs[f"{where(int(index))}.proj.{leaf}"] = value
        elif key == "fusion_conv.conv.weight":
            theirs[f"{fuse}.weight"] = torch.cat(value.chunk(4, dim=1)[::-1], dim=1)
        else:
            key = key.replace("fusion_conv.bn", norm).replace("conv_seg", classifier)
            theirs[key] = value
    return theirs


def network(name, *options):
    torch.manual_seed(0)
    return Segmentor(load_config(f"configs/_base_/models/{name}.yaml", [*SMALL, *options])).eval()


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_key_of_mmsegmentation_finds_its_place(name):
    source = network(name)
    own = source.state_dict()
    names = LAYOUTS[name]
    assert set(names) == set(own)
    theirs = {names[key]: value for key, value in own.items()}
    target = network(name)
    for p in target.parameters():
        torch.nn.init.ones_(p)
    found = convert({"state_dict": theirs, "meta": {}})
    check_fit(target, found.weights)
    target.load_state_dict(found.weights)
    images = torch.randn(1, 3, 41, 57)
    with torch.no_grad():
        assert torch.equal(source.encode_normalized(images).logits, target.encode_normalized(images).logits)
    assert found.config == {"MODEL.SEM_SEG_HEAD.NUM_CLASSES": 3}


def shaken(name, *options):
    """A network whose every weight and statistic differs from its default, and its state in two parts."""
    source = network(name, *options)
    with torch.no_grad():
        for value in source.state_dict().values():
            if value.is_floating_point():
                value.add_(0.1 * torch.rand_like(value))
    state = source.state_dict()
    parts = [
        {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        for prefix in ("backbone.net.", "decode_head.")
    ]
    return source, *parts


def test_mmsegmentations_segformer_finds_its_place():
    source, body, head = shaken("segformer_b0")
    theirs = {f"backbone.{k}": v for k, v in mmseg_mit(body).items()}
    theirs |= {f"decode_head.{k}": v for k, v in head.items()}
    assert theirs["backbone.layers.2.1.1.attn.attn.in_proj_weight"].shape == (3 * 160, 160)
    found = convert({"state_dict": theirs, "meta": {"cfg": "align_corners=False"}})
    check_fit(source, found.weights)
    assert all(torch.equal(found.weights[k], v) for k, v in source.state_dict().items())


LINEAR = "MODEL.SEM_SEG_HEAD.NAME LinearSegformerHead".split()


HEADS = {
    "CIRKD": ("", lambda i: f"linear_c{i + 1}", "linear_fuse.0", "linear_fuse.1", "linear_pred"),
    "SegFormer's authors": (
        "decode_head.",
        lambda i: f"linear_c{i + 1}",
        "linear_fuse.conv",
        "linear_fuse.bn",
        "linear_pred",
    ),
    "Hugging Face": ("decode_head.", lambda i: f"linear_c.{i}", "linear_fuse", "batch_norm", "classifier"),
}


@pytest.mark.parametrize("origin", HEADS)
def test_segformers_with_linear_heads_find_their_place(origin):
    source, body, head = shaken("segformer_b0", *LINEAR)
    prefix, *names = HEADS[origin]
    theirs = {f"{prefix}{k}": v for k, v in linear_head(head, *names).items()}
    if origin == "Hugging Face":
        theirs |= {f"segformer.{k}": v for k, v in hugging_face_mit(body).items()}
    else:
        before = "backbone." if prefix else ""
        theirs |= {f"{before}{k}": v for k, v in original_mit(body).items()}
    unused = {"decode_head.conv_seg.weight": torch.ones(3, 128, 1, 1)} if "authors" in origin else {}
    found = convert(theirs | unused)
    check_fit(source, found.weights)
    assert all(torch.equal(found.weights[k], v) for k, v in source.state_dict().items())
    assert found.source == origin and found.config["MODEL.SEM_SEG_HEAD.NAME"] == "LinearSegformerHead"
    assert found.config["MODEL.SEM_SEG_HEAD.CHANNELS"] == 8
    assert ("INPUT.FORMAT" in found.config) is (origin == "CIRKD")


def test_a_bias_in_front_of_a_batch_norm_moves_its_mean():
    """Only CIRKD's SegFormer has one."""
    source, body, head = shaken("cirkd_segformer_b0")
    bias = torch.randn(8)
    with_bias = original_mit(body) | linear_head(head, *HEADS["CIRKD"][1:]) | {"linear_fuse.0.bias": bias}
    found = convert(with_bias)
    check_fit(source, found.weights)
    images = torch.randn(1, 3, 41, 57)
    with torch.no_grad():
        conv = source.decode_head.fusion_conv.conv
        conv.bias = torch.nn.Parameter(bias)
        wanted = source.encode_normalized(images).logits
        conv.bias = None
        assert not torch.allclose(wanted, source.encode_normalized(images).logits)
        source.load_state_dict(found.weights)
        torch.testing.assert_close(source.encode_normalized(images).logits, wanted)


def cirkd_names():
    """{our key: CIRKD's} of its DeepLabV3 on ResNet-18."""
    names = {}
    stem = [("conv1.0", "conv1.1"), ("conv1.3", "conv1.4"), ("conv1.6", "bn1")]
    for i, pair in enumerate(stem, start=1):
        names |= conv_norm([f"backbone.net.{x}" for x in pair], (f"pretrained.conv{i}", f"pretrained.bn{i}"))
    for ours, theirs in mmseg_resnet18((1, 2, 3, 4)).items():  # its stem is twice as wide
        if ".layer" in ours:
            names[ours] = theirs.replace("backbone.", "pretrained.")
    modules = {f"decode_head.aspp_modules.{i}": f"head.aspp.b{i}.block" for i in (1, 2, 3)}
    modules |= {"decode_head.aspp_modules.0": "head.aspp.b0", "decode_head.project": "head.aspp.project"}
    modules |= {"decode_head.bottleneck": "head.block", "auxiliary_head.convs.0": "auxlayer.block"}
    for ours, theirs in modules.items():
        names |= conv_norm((f"{ours}.conv", f"{ours}.bn"), (f"{theirs}.0", f"{theirs}.1"))
    pool = "decode_head.image_pool.1"
    names |= conv_norm((f"{pool}.conv", f"{pool}.bn"), ("head.aspp.b4.gap.1", "head.aspp.b4.gap.2"))
    for leaf in ("weight", "bias"):
        names[f"decode_head.conv_seg.{leaf}"] = f"head.block.4.{leaf}"
        names[f"auxiliary_head.conv_seg.{leaf}"] = f"auxlayer.block.4.{leaf}"
    return names


def test_cirkds_checkpoint_brings_its_normalisation():
    source = network("cirkd_deeplabv3_r18")
    names = cirkd_names()
    assert set(names) == set(source.state_dict())
    theirs = {f"module.{names[key]}": value for key, value in source.state_dict().items()}
    found = convert(theirs | {"module.pretrained.fc.weight": torch.ones(1)})
    check_fit(source, found.weights)
    assert all(torch.equal(found.weights[k], v) for k, v in source.state_dict().items())
    assert found.config["INPUT.FORMAT"] == "BGR" and found.config["MODEL.PIXEL_STD"] == [1.0, 1.0, 1.0]
    assert found.config["MODEL.PIXEL_MEAN"] == [104.00698793, 116.66876762, 122.67891434]
    assert found.config["MODEL.SEM_SEG_HEAD.ALIGN_CORNERS"] is True


@pytest.mark.parametrize(
    "meta, align_corners, classes",
    [
        (
            {"config": "decode_head=dict(align_corners=True)", "CLASSES": ("road", "car")},
            True,
            ("road", "car"),
        ),
        ({"cfg": "dict(align_corners=False)", "dataset_meta": {"classes": ["a"]}}, False, ("a",)),
        ({}, None, ()),
    ],
)
def test_what_the_container_says_is_kept(meta, align_corners, classes):
    weights = {"backbone.x": torch.ones(1), "decode_head.conv_seg.weight": torch.ones(3, 2, 1, 1)}
    found = convert({"state_dict": weights, "meta": meta})
    assert found.config.get("MODEL.SEM_SEG_HEAD.ALIGN_CORNERS") is align_corners
    assert found.classes == classes


def test_heads_that_resize_differently_are_refused():
    meta = {"config": "align_corners=True ... align_corners=False"}
    with pytest.raises(ValueError, match="align_corners"):
        convert({"state_dict": {"backbone.x": torch.ones(1)}, "meta": meta})


def test_every_missing_and_unexpected_key_is_listed():
    model = network("pspnet_r18")
    weights = dict(model.state_dict())
    gone = [k for k in weights if k.startswith("decode_head.bottleneck") and not k.endswith("tracked")]
    for key in gone:
        del weights[key]
    weights["decode_head.extra.weight"] = torch.ones(1)
    with pytest.raises(ValueError) as error:
        check_fit(model, weights)
    assert all(key in str(error.value) for key in [*gone, "decode_head.extra.weight"])
    assert f"{len(gone)} missing" in str(error.value) and "1 unexpected" in str(error.value)


def test_a_backbones_weights_are_no_checkpoint():
    with pytest.raises(ValueError, match="MODEL.BACKBONE.PRETRAINED"):
        convert({"conv1.weight": torch.ones(1)})


def run_tool(monkeypatch, *arguments):
    spec = importlib.util.spec_from_file_location("convert_mmseg", "tools/convert_mmseg.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(sys, "argv", ["convert_mmseg.py", *map(str, arguments)])
    tool.main()


def test_the_tool_writes_weights_and_the_config_that_goes_with_them(tmp_path, monkeypatch):
    source = network("pspnet_r18")
    theirs = {LAYOUTS["pspnet_r18"][key]: value for key, value in source.state_dict().items()}
    meta = {"config": "align_corners=True", "CLASSES": ("a", "b", "c")}
    torch.save({"state_dict": theirs, "meta": meta}, tmp_path / "in.pth")
    out, config = tmp_path / "out.pth", "configs/_base_/models/pspnet_r18.yaml"
    run_tool(
        monkeypatch,
        tmp_path / "in.pth",
        out,
        "--config-file",
        config,
        "--opts",
        "MODEL.SEM_SEG_HEAD.CHANNELS",
        "8",
    )
    written = yaml.safe_load(out.with_suffix(".yaml").read_text())
    assert written["MODEL"]["SEM_SEG_HEAD"] == {"ALIGN_CORNERS": True, "NUM_CLASSES": 3}
    options = ["MODEL.DEVICE", "cpu", "MODEL.SEM_SEG_HEAD.CHANNELS", "8"]
    model = Segmentor(load_config(str(out.with_suffix(".yaml")), options))
    load_teacher(model, str(out))
    assert model.decode_head.align_corners and torch.load(out)["classes"] == ["a", "b", "c"]


def test_a_damaged_published_file_is_found_by_its_name(tmp_path):
    name = next(name for name, entry in zoo.zoo().items() if "sha256" in entry)
    (tmp_path / name).write_bytes(b"half of it")
    with pytest.raises(ValueError, match="sha256"):
        zoo.check_digest(tmp_path / name)


def test_every_published_network_has_its_config():
    for name, entry in zoo.zoo().items():
        assert 20 < entry["mIoU"] < 90, name
        assert Path(f"configs/_base_/models/{entry['model']}.yaml").is_file(), name
