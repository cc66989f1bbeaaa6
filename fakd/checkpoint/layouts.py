"""Names of one network's weights in the files of other projects, as timm calls them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

# Blocks in each stage of a MobileNetV2; files of other projects count them in one row.
_MOBILENET_BLOCKS = (1, 2, 3, 4, 3, 3, 1)
_DEEP_STEM = {"0": "conv1.0", "1": "conv1.1", "3": "conv1.3", "4": "conv1.4", "6": "conv1.6", "7": "bn1"}
_CIRKD_STEM = {
    "conv1": "conv1.0",
    "bn1": "conv1.1",
    "conv2": "conv1.3",
    "bn2": "conv1.4",
    "conv3": "conv1.6",
    "bn3": "bn1",
}


def unwrap(content: Mapping) -> dict[str, Tensor]:
    """The weights of a loaded file: bare, or under "state_dict" or "model"; without "module." in front.

    Raises:
        ValueError: there are none.
    """
    for key in ("state_dict", "model"):
        if isinstance(content.get(key), Mapping):
            content = content[key]
    weights = {k.removeprefix("module."): v for k, v in content.items() if isinstance(v, Tensor)}
    if not weights:
        raise ValueError(f"holds no weights; its keys are {', '.join(map(str, list(content)[:5]))}")
    return weights


def backbone_names(keys: Iterable[str]) -> tuple[str, dict[str, str]]:
    """timm's name for every key of a backbone, whose layout is recognised by its keys.

    Args:
        keys: without the prefix of the whole network.

    Returns:
        The layout's name, for the log, and {key: timm's key}.
    """
    keys = list(keys)
    have = set(keys)
    rename: Callable[[str], str]
    if "stem.0.weight" in have and "layer1.0.conv1.weight" in have:
        layout, rename = "mmsegmentation's ResNet", _mmseg_resnet
    elif "layer1.0.conv.0.conv.weight" in have:
        layout, rename = "mmsegmentation's MobileNetV2", _mmseg_mobilenet
    elif "conv3.weight" in have and "layer1.0.conv1.weight" in have:
        layout, rename = "CIRKD's ResNet", _cirkd_resnet
    elif "features.1.conv.0.0.weight" in have:
        layout, rename = "torchvision's MobileNetV2", _torchvision_mobilenet
    elif "features.1.conv.0.weight" in have:
        layout, rename = "CIRKD's MobileNetV2", _cirkd_mobilenet
    else:
        layout, rename = "timm's", str
    return layout, {key: rename(key) for key in keys}


def _mmseg_resnet(key: str) -> str:
    match = re.fullmatch(r"stem\.(\d)\.(\w+)", key)
    return f"{_DEEP_STEM.get(match[1], match[1])}.{match[2]}" if match else key


def _cirkd_resnet(key: str) -> str:
    module, _, leaf = key.partition(".")
    return f"{_CIRKD_STEM.get(module, module)}.{leaf}"


def _mmseg_mobilenet(key: str) -> str:
    if match := re.fullmatch(r"conv1\.(conv|bn)\.(\w+)", key):
        return f"{'conv_stem' if match[1] == 'conv' else 'bn1'}.{match[2]}"
    if match := re.fullmatch(r"layer(\d)\.(\d)\.conv\.(\d)\.(conv|bn)\.(\w+)", key):
        stage = int(match[1]) - 1
        return _mobilenet_block(stage, int(match[2]), int(match[3]), match[4] == "bn", match[5])
    return key


def _torchvision_mobilenet(key: str) -> str:
    if match := re.fullmatch(r"features\.(\d+)\.conv\.(\d)\.(?:(\d)\.)?(\w+)", key):
        # Activations share a Sequential with their convolution, but the last convolution has none.
        last = match[3] is None
        depthwise = 1 if match[1] == "1" else 2
        position = depthwise if last else int(match[2])
        is_bn = int(match[2]) > depthwise if last else match[3] == "1"
        return _mobilenet_block(*_mobilenet_index(match[1]), position, is_bn, match[4])
    return _mobilenet_stem(key)


def _cirkd_mobilenet(key: str) -> str:
    if match := re.fullmatch(r"features\.(\d+)\.conv\.(\d)\.(\w+)", key):
        position, part = divmod(int(match[2]), 3)  # convolution, batch norm, activation
        return _mobilenet_block(*_mobilenet_index(match[1]), position, part == 1, match[3])
    return _mobilenet_stem(key)


def _mobilenet_stem(key: str) -> str:
    match = re.fullmatch(r"features\.0\.([01])\.(\w+)", key)
    return f"{('conv_stem', 'bn1')[int(match[1])]}.{match[2]}" if match else key


def _mobilenet_index(feature: str) -> tuple[int, int]:
    """Stage and block of the n-th feature; feature 0 is the stem. Beyond the last block, the stage is 7."""
    block = int(feature) - 1
    for stage, count in enumerate(_MOBILENET_BLOCKS):
        if block < count:
            return stage, block
        block -= count
    return len(_MOBILENET_BLOCKS), block


def _mobilenet_block(stage: int, block: int, position: int, is_bn: bool, leaf: str) -> str:
    """The name of the convolution at ``position`` in its block, or of the batch norm behind it."""
    convs = ("conv_dw", "conv_pw") if stage == 0 else ("conv_pw", "conv_dw", "conv_pwl")
    return f"blocks.{stage}.{block}.{f'bn{position + 1}' if is_bn else convs[position]}.{leaf}"
