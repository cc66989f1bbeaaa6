"""Every format: the same classes as PyTorch's, metadata inside or beside, and errors before any work."""

import sys

import pytest
import torch

from fakd.deploy import side_by_side
from fakd.deploy.exported import load_exported
from fakd.deploy.formats import FORMATS, format_of
from fakd.deploy.formats.base import Format, metadata_behind, parsed, with_metadata
from fakd.deploy.metadata import build_metadata, read_metadata
from fakd.deploy.side_by_side import export_all
from fakd.modeling import Segmentor

from .networks import SIZE, config, export, network


def skip_without(name):
    """Skips where the format's packages are not installed, as in an environment of few extras."""
    try:
        FORMATS[name].require()
    except ValueError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("name", "model"),
    [
        pytest.param("openvino", "isanet_r18", marks=pytest.mark.slow),  # a minute
        ("openvino", "deeplabv3plus_mbv2"),
    ],
)
def test_a_runtime_computes_what_pytorch_does(name, model, tmp_path):
    skip_without(name)
    made = FORMATS[name]
    size = None if made.any_size else SIZE
    deployed, metadata = network(model, size=size)
    path = tmp_path / f"x{made.ending}"
    found = export(deployed, metadata, path, name)
    assert found.agreement >= 0.999 and found.difference < 1e-3 * found.scores
    loaded = load_exported(path)
    assert loaded.metadata == metadata and format_of(path) is made
    for height, width in ((33, 71), SIZE):
        image = torch.randint(256, (3, height, width)).float()
        scores = loaded([{"image": image}])[0]["sem_seg"]
        assert scores.shape == (12, height, width)
        if size in (None, (height, width)):
            with torch.no_grad():
                torch.testing.assert_close(scores, deployed(image[None])[0], rtol=1e-3, atol=1e-3)


_VALUES = str((100.0,) * 5)
FIVE = {"INPUT.CHANNELS": "5", "MODEL.PIXEL_MEAN": _VALUES, "MODEL.PIXEL_STD": _VALUES}
SLOW = [name for name in FORMATS if name not in ("torchscript", "ncnn")]  # half a minute each


@pytest.mark.parametrize(
    "name", ["torchscript", "ncnn", *(pytest.param(x, marks=pytest.mark.slow) for x in SLOW)]
)
def test_every_format_takes_five_channels_and_weights_in_another_layout(name, tmp_path):
    skip_without(name)
    deployed, metadata = network("pspnet_r18", SIZE, **FIVE, **{"MODEL.CHANNELS_LAST": "True"})
    path = tmp_path / f"x{FORMATS[name].ending}"
    found = export(deployed, metadata, path, name)
    if found is None:  # nothing here runs it
        return
    assert found.agreement >= 0.999
    image = 255 * torch.rand(5, *SIZE)
    scores = load_exported(path, allow_pickle=True)([{"image": image}])[0]["sem_seg"]
    with torch.no_grad():
        torch.testing.assert_close(scores, deployed(image[None])[0], rtol=1e-3, atol=1e-3)


def test_the_table_of_formats_takes_five_channels_and_a_network_of_a_plugin(tmp_path, monkeypatch):
    for name in set(FORMATS) - {"torchscript"}:
        monkeypatch.delitem(FORMATS, name)
    monkeypatch.setattr(side_by_side, "peak_memory", side_by_side._measure_memory)  # not in another process
    plugin = tmp_path / "seen_in_a_table.py"
    plugin.touch()
    cfg = config("pspnet_r18", **FIVE)
    cfg.PLUGINS, cfg.DATASETS.TEST = (str(plugin),), ()
    weights = tmp_path / "x.pth"
    torch.save({"model": Segmentor(cfg).state_dict()}, weights)
    table = export_all(cfg, str(weights), tmp_path / "x", SIZE, repeats=1, tell=lambda line: None)
    assert list(table["precision"]) == ["float32", "float32", "float16"] and (table["memory (MB)"] >= 0).all()
    assert any("seen_in_a_table" in name for name in sys.modules)


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_says_all_that_a_user_has_to_know(name):
    made = FORMATS[name]
    assert made.name == name and made.ending.startswith(".") and made.runtime
    assert bool(made.extra) == bool(made.modules)
    assert format_of(f"folder/a.b{made.ending}") is made
    assert made.stem(f"folder/a.b{made.ending}") == "folder/a.b"
    for name_of in ("ending", "runtime"):
        assert len({getattr(each, name_of) for each in FORMATS.values()}) == len(FORMATS)


class Nowhere(Format):
    name, ending, runtime, extra, any_size = "nowhere", ".nw", "nowhere", "nw", False
    modules = ("json", "no_such_package")

    def write(self, network, metadata, opset=18, batch=1):
        raise AssertionError("it must be refused before")

    open = write


@pytest.mark.parametrize(
    ("size", "precision", "error"),
    [
        (SIZE, "float32", r"no_such_package is not installed: pip install 'fakd\[nw\]'"),
        (None, "float32", "nowhere takes images of one size: give --size H W"),
        (SIZE, "int8", "nowhere is written in float32, not in int8"),
    ],
)
def test_what_a_format_cannot_do_is_said_before_any_work(monkeypatch, tmp_path, size, precision, error):
    monkeypatch.setitem(FORMATS, "nowhere", Nowhere())
    deployed, metadata = network("pspnet_r18", size=size)
    with pytest.raises(ValueError, match=error):
        export(deployed, metadata.model_copy(update={"precision": precision}), tmp_path / "x.nw", "nowhere")
    (tmp_path / "x.nw").touch()
    with pytest.raises(ValueError, match="no_such_package is not installed"):
        load_exported(tmp_path / "x.nw")


def test_a_name_with_another_ending_is_refused(tmp_path):
    deployed, metadata = network("pspnet_r18")
    with pytest.raises(ValueError, match=r"format torchscript must end in \.ts, unlike '.*x\.onnx'"):
        export(deployed, metadata, tmp_path / "x.onnx", "torchscript")
    (tmp_path / "x.bin").touch()
    with pytest.raises(ValueError, match=r"x\.bin' has the ending of no format .*\.onnx"):
        load_exported(tmp_path / "x.bin")
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]


@pytest.mark.parametrize("name", [name for name in FORMATS if FORMATS[name].runs_here])
def test_a_damaged_file_is_named(name, tmp_path):
    skip_without(name)
    path = tmp_path / f"x{FORMATS[name].ending}"
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=rf"cannot open '.*x\{FORMATS[name].ending}"):
        load_exported(path, allow_pickle=True)


def test_damaged_metadata_is_named(tmp_path):
    metadata = network("pspnet_r18")[1]
    path, content = tmp_path / "x.tflite", with_metadata(b"graph", metadata)
    path.write_bytes(content)
    assert metadata_behind(path) == metadata.as_json()
    path.write_bytes(content.replace(b"classes", b"clasles", 1))
    with pytest.raises(ValueError, match=r"metadata in '.*x.tflite' is damaged \(.*\). Copy it anew, or"):
        metadata_behind(path)
    for damaged in (b'{"classes: 1}', b"\xff", b"5"):
        with pytest.raises(ValueError, match=r"metadata in '.*x.tflite' is damaged"):
            parsed(damaged, path)


def test_an_operator_that_ncnn_lacks_is_named(tmp_path):
    skip_without("ncnn")
    deployed, metadata = network("isanet_r18")
    with pytest.raises(ValueError, match=r"ncnn lacks, in the form needed here, Tensor\.reshape"):
        export(deployed, metadata, tmp_path / "x.ncnn.param", "ncnn")
    assert not list(tmp_path.iterdir())


def test_coreml_is_written_with_the_sides_and_the_metadata(tmp_path):
    """And no more: it runs on macOS alone."""
    skip_without("coreml")
    import coremltools

    deployed, metadata = network("pspnet_r18")
    found = export(deployed, metadata, tmp_path / "x.mlpackage", "coreml")
    model = coremltools.models.MLModel(str(tmp_path / "x.mlpackage"), skip_model_load=True)
    spec = model.get_spec().description
    assert [(each.name, list(each.type.multiArrayType.shape)) for each in spec.input] == [
        ("image", [1, 3, *SIZE])
    ]
    assert [each.name for each in spec.output] == ["scores"]
    assert read_metadata(model.user_defined_metadata, "x") == metadata
    if not FORMATS["coreml"].runs_here:
        assert found is None
        with pytest.raises(ValueError, match="CoreML, which runs on macOS alone"):
            load_exported(tmp_path / "x.mlpackage")


def test_a_size_of_nothing_is_told_in_one_line():
    cfg = config("deeplabv3plus_mbv2")
    with pytest.raises(ValueError, match="size .* must not be 0") as told:
        build_metadata(cfg, Segmentor(cfg), (0, 0), True, "float32")
    assert "\n" not in str(told.value) and "pydantic" not in str(told.value)
