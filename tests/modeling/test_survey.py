"""What timm's networks do as backbones is documented, and is said where it is not what was asked for."""

import logging
from pathlib import Path

import pytest
import torch

from fakd.modeling import TimmBackbone
from fakd.modeling.backbones.survey import TABLE_HEAD, families, survey

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def on_meta(name, **options):
    with torch.device("meta"):
        return TimmBackbone(name=name, **options).eval()


@pytest.mark.parametrize(
    "name, strides, images",
    [
        ("resnet18", ((4, 8, 8, 8), (4, 8, 16, 16), (4, 8, 16, 32)), "any size"),
        ("densenet121", ((4, 8, 16, 32),) * 3, "any size"),
        ("vit_tiny_patch16_224", ((16, 16, 16),) * 3, "any size"),
        ("levit_128", ((16, 32, 64),) * 3, "224x224 alone"),
    ],
)
def test_strides_and_sizes_are_what_the_networks_do(name, strides, images):
    found = survey(name)
    assert found.strides == strides and found.images == images


@pytest.mark.parametrize(
    "name", ["densenet121", "efficientnet_b0", "levit_128", "mobilenetv3_rw", "pvt_v2_b0"]
)
def test_the_documented_row_is_the_networks(name):
    assert TABLE_HEAD in PAGE.read_text()
    assert str(survey(name)) in PAGE.read_text().splitlines()


def test_the_documents_have_a_row_for_every_family():
    missing = [name for name in families() if f"| `{name}` |" not in PAGE.read_text()]
    assert not missing, "python tools/list_networks.py makes the table"


def test_an_unknown_network_is_an_error():
    with pytest.raises(ValueError, match="timm has no network 'resnet18x'"):
        survey("resnet18x")


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"])
def test_transformers_made_for_one_size_take_any_where_they_can(name):
    backbone = on_meta(name, output_stride=32)
    shapes = backbone.output_shape()
    for key, found in backbone(torch.empty(1, 3, 64, 96, device="meta")).items():
        assert found.shape[2:] == (64 // shapes[key].stride, 96 // shapes[key].stride)


def test_a_size_that_is_given_is_kept():
    options = ("img_size", (64, 96))
    backbone = on_meta("vit_tiny_patch16_224", output_stride=32, options=options)
    backbone(torch.empty(1, 3, 64, 96, device="meta"))
    with pytest.raises(ValueError, match="does not take images of 96x96"):
        backbone(torch.empty(1, 3, 96, 96, device="meta"))


@pytest.mark.parametrize("name", ["levit_128", "cait_xxs24_224", "halonet26t"])
def test_a_network_of_one_size_refuses_others_with_remedies(name):
    with pytest.raises(ValueError, match=f"(?s)TIMM_NAME: {name} does not take images of 64x96.*TEST.WINDOW"):
        on_meta(name, output_stride=32)(torch.empty(1, 3, 64, 96, device="meta"))


def test_other_errors_of_a_network_stay_what_they_are():
    with pytest.raises(RuntimeError, match="channel"):
        on_meta("resnet18", output_stride=32)(torch.empty(1, 4, 64, 96, device="meta"))


@pytest.mark.parametrize("name", ["densenet121", "levit_128", "vit_tiny_patch16_224"])
def test_strides_that_are_not_honoured_are_said_loudly(name, caplog):
    with caplog.at_level(logging.WARNING):
        backbone = on_meta(name, output_stride=8)
    (warning,) = [record.message for record in caplog.records]
    assert f"{name} to MODEL.BACKBONE.OUTPUT_STRIDE 8" in warning and "KEEPS ITS OWN STRIDES" in warning
    assert [shape.stride for shape in backbone.output_shape().values()][-1] != 8


def test_strides_that_are_honoured_are_not_spoken_of(caplog):
    with caplog.at_level(logging.WARNING):
        on_meta("resnet18", output_stride=8)
        on_meta("vit_tiny_patch16_224", output_stride=16)
    assert not caplog.records
