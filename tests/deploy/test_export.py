"""Exported graphs, run by onnxruntime and PyTorch."""

import onnx
import pytest
import torch
from torch import nn

from fakd.deploy.export import compare, keep
from fakd.deploy.exported import load_exported
from fakd.deploy.formats import FORMATS
from fakd.deploy.formats import onnx as onnx_format
from fakd.deploy.formats.onnx import onnx_graph
from fakd.deploy.metadata import read_metadata
from fakd.deploy.network import program_of, traced

from .networks import SIZE, export, network


@pytest.mark.parametrize("model", ["deeplabv3plus_mbv2", "isanet_r18", "cirkd_deeplabv3_r18"])
def test_onnxruntime_computes_the_heads(model, tmp_path):
    deployed, metadata = network(model)
    found = export(deployed, metadata, tmp_path / "x.onnx")
    assert found.agreement == 1 and found.difference < 1e-4 * found.scores
    image = torch.randint(256, (3, *SIZE)).float()
    with torch.no_grad():
        expected = deployed(image[None])[0]
    scores = load_exported(tmp_path / "x.onnx")([{"image": image}])[0]["sem_seg"]
    torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-4)


def test_a_graph_for_any_size_has_pyramid_pooling_and_a_batch(tmp_path):
    deployed, metadata = network("pspnet_r18", size=None)
    assert export(deployed, metadata, tmp_path / "x.onnx").agreement == 1
    model = onnx.load(tmp_path / "x.onnx")
    sides = [side.dim_param or side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim]
    assert sides == ["batch", 3, "height", "width"]
    assert not any(node.metadata_props for node in model.graph.node)  # they hold paths of this machine
    for size in ((33, 71), (64, 32)):
        image = torch.randint(256, (3, *size)).float()
        with torch.no_grad():
            expected = deployed(image[None])[0]
        scores = load_exported(tmp_path / "x.onnx")([{"image": image}])[0]["sem_seg"]
        torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("file_format, suffix", [("torchscript", ".ts"), ("torch-export", ".pt2")])
def test_pytorch_s_own_formats_hold_the_same_network_and_metadata(file_format, suffix, tmp_path):
    deployed, metadata = network("pspnet_r18")
    found = export(deployed, metadata, tmp_path / f"x{suffix}", file_format)
    assert found.difference < 1e-5 * found.scores
    loaded = load_exported(tmp_path / f"x{suffix}", allow_pickle=True)
    assert loaded.metadata == metadata and len(metadata.classes) == len(metadata.colours) == 12
    # A fixed input takes images of any size, and gives scores at theirs.
    assert loaded([{"image": torch.zeros(3, 30, 30)}])[0]["sem_seg"].shape == (12, 30, 30)
    asked = {"image": torch.zeros(3, 30, 30), "height": 7, "width": 9}
    assert loaded([asked])[0]["sem_seg"].shape == (12, 7, 9)


def test_a_file_that_computes_something_else_is_not_written(tmp_path):
    deployed, metadata = network("pspnet_r18")
    other = network("pspnet_r18")[0]
    nn.init.normal_(other.network.decode_head.conv_seg.weight)
    with pytest.raises(ValueError, match=r"compute something else: .* 99.9 % must. Nothing was written"):
        export(deployed, metadata, tmp_path / "x.ts", "torchscript", reference=other)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_scores_that_are_no_numbers_are_not_written(monkeypatch, tmp_path, value):
    deployed, metadata = network("pspnet_r18")
    metadata = metadata.model_copy(update={"precision": "float16"})
    path, shown = tmp_path / "x.ts", []

    def run(image):  # of the second image alone
        shown.append(image)
        return deployed(image) * (value if len(shown) == 2 else 1)

    made = FORMATS["torchscript"]
    monkeypatch.setattr(type(made), "open", lambda *_: (run, {}))
    with pytest.raises(ValueError, match=r"file's scores are not all finite. Nothing .* float32 has room"):
        keep(made, {".ts": b""}, deployed, metadata, path)
    deployed.network.decode_head.conv_seg.bias[0] = value
    with pytest.raises(ValueError, match=r"network's scores are not all finite. Nothing was written.$"):
        keep(made, {".ts": b""}, deployed, metadata, path)
    assert not list(tmp_path.iterdir())


class OneSize(nn.Module):
    def forward(self, image):
        return image.reshape(-1, 3 * 40 * 56).reshape(image.shape)


def test_a_network_of_one_size_is_refused_for_any(tmp_path):
    with pytest.raises(ValueError, match=r"cannot be exported for any size \(.*--size H W"):
        program_of(OneSize(), None, 1)
    program_of(OneSize(), SIZE, 1)


class Fails(nn.Module):
    def __init__(self, message):
        super().__init__()
        self.message = message

    def forward(self, image):
        raise AssertionError(*self.message)


@pytest.mark.parametrize("message, told", [(["no\nplace"], "no"), ([], r"AssertionError\(\)")])
def test_a_network_that_fails_is_told_by_each_way_to_a_file(message, told):
    deployed, _ = network("pspnet_r18")
    with pytest.raises(ValueError, match=rf"torch.export cannot follow this network \({told}\); --format"):
        program_of(Fails(message), SIZE)
    with pytest.raises(ValueError, match=rf"jit.trace cannot follow this network \({told}\); --format"):
        traced(Fails(message), torch.rand(1, 3, *SIZE))
    last = told.replace("no", "place")
    with pytest.raises(ValueError, match=rf"exported graph fails at 8x8: {last} Export it for a fixed"):
        compare(deployed, Fails(message), [(1, 8, 8)])


def test_an_exporter_that_fails_is_a_reason_not_to_write(monkeypatch):
    def fail(program, opset):
        raise torch.onnx.OnnxExporterError("step 2/3") from IndexError("no such value\n ...")

    monkeypatch.setattr(onnx_format, "_written", fail)
    with pytest.raises(ValueError, match=r"torch.onnx cannot write this network \(no such value\); --format"):
        graph(nn.Conv2d(3, 4, 3), 18)


class Bessel(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


def graph(module, opset):
    return onnx_graph(torch.export.export(module, (torch.rand(1, 3, 8, 8),)), opset)


def test_a_missing_operator_is_named():
    with pytest.raises(
        ValueError, match=r"opset 18 has nothing for the operator prims.bessel_j0, and no later"
    ):
        graph(Bessel(), 18)


def test_an_opset_that_is_too_old_is_answered_by_one_that_is_not():
    with pytest.raises(ValueError, match=r"opset 11, which lacks.* Resize \(opset 18\).*Use --opset 18"):
        graph(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Upsample(scale_factor=2, mode="bilinear")), 11)


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("classes", "5", "classes is 5, but must be a list"),
        ("classes", '["a", "b"]', "there are 2 classes and 12 colours"),
        ("colours", "[[1, 2]]", r"colours\[0\]\[2\] is missing"),
        ("input_format", '"HSV"', "input_format is 'HSV'; choose from RGB or BGR"),
        ("pixel_std", "[0, 1, 1]", "pixel_std, size and the stride"),
        ("size", "[0, 5]", "must not be 0"),
        ("normalize", "{", "no file of fakd export"),
        ("window", "", "window is missing"),
    ],
)
def test_wrong_metadata_is_named(tmp_path, name, text, error):
    metadata = network("pspnet_r18")[1]
    path = tmp_path / "x.onnx"
    with pytest.raises(ValueError, match=rf"x\.onnx.*{error}"):
        read_metadata(metadata.as_json() | {name: text}, path)
    assert read_metadata(metadata.as_json(), path) == metadata


def test_a_foreign_file_is_no_student(tmp_path):
    made = graph(nn.Conv2d(3, 4, 3), 18)
    onnx.save(made, tmp_path / "x.onnx")
    with pytest.raises(ValueError, match=r"x.onnx' does not say what its classes.*fakd export"):
        load_exported(tmp_path / "x.onnx")
    (tmp_path / "y.ts").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"PyTorch cannot open '.*y.ts'"):
        load_exported(tmp_path / "y.ts")
    with pytest.raises(FileNotFoundError, match="no exported network at"):
        load_exported(tmp_path / "z.onnx")
