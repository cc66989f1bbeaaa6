"""One network's weights in the files of other projects, as timm calls and divides them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
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


def backbone_weights(weights: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """A backbone's weights as timm's feature network has them; the layout is recognised by its keys.

    Args:
        weights: without the prefix of the whole network.

    Returns:
        The layout's name, for the log, and {timm's key: weight}.
    """
    layout, rename = _layout(weights)
    renamed = {rename(key): value for key, value in weights.items()}
    return layout, _as_pyramid(renamed) if rename in (_mmseg_mit, _hugging_face_mit) else renamed


def _layout(have: Mapping[str, Tensor]) -> tuple[str, Callable[[str], str]]:
    if "stem.0.weight" in have and "layer1.0.conv1.weight" in have:
        return "mmsegmentation's ResNet", _mmseg_resnet
    if "layer1.0.conv.0.conv.weight" in have:
        return "mmsegmentation's MobileNetV2", _mmseg_mobilenet
    if "layers.0.0.projection.weight" in have:
        return "mmsegmentation's MiT", _mmseg_mit
    if "conv3.weight" in have and "layer1.0.conv1.weight" in have:
        return "CIRKD's ResNet", _cirkd_resnet
    if "features.1.conv.0.0.weight" in have:
        return "torchvision's MobileNetV2", _torchvision_mobilenet
    if "features.1.conv.0.weight" in have:
        return "CIRKD's MobileNetV2", _cirkd_mobilenet
    if "patch_embed1.proj.weight" in have:
        return "its authors' MiT", _original_mit
    if any(key.removeprefix("segformer.") == "encoder.patch_embeddings.0.proj.weight" for key in have):
        return "Hugging Face's MiT", _hugging_face_mit
    return "timm's", str


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


def _mit_place(stage: str | int, rest: str) -> str:
    """Of the stages' embeddings timm has the first in front of its stage."""
    if rest.startswith("downsample.") and int(stage) == 0:
        return f"patch_embed.{rest.removeprefix('downsample.')}"
    return f"stages_{stage}.{rest}"


def _mmseg_mit(key: str) -> str:
    match = re.fullmatch(r"layers\.(\d)\.(\d)\.(.+)", key)
    if not match:
        return key
    stage, part, rest = match.groups()
    if part == "0":
        return _mit_place(stage, f"downsample.{rest.replace('projection.', 'proj.')}")
    if part == "2":
        return _mit_place(stage, f"norm.{rest}")
    for theirs, timm in (
        ("attn.attn.in_proj_", "attn.qkv."),
        ("attn.attn.out_proj.", "attn.proj."),
        ("ffn.layers.0.", "mlp.fc1."),
        ("ffn.layers.1.", "mlp.dwconv."),
        ("ffn.layers.4.", "mlp.fc2."),
    ):
        rest = rest.replace(theirs, timm)
    return _mit_place(stage, f"blocks.{rest}")


def _original_mit(key: str) -> str:
    match = re.fullmatch(r"(patch_embed|block|norm)(\d)\.(.+)", key)
    if not match:
        return key
    part = {"patch_embed": "downsample", "block": "blocks", "norm": "norm"}[match[1]]
    return _mit_place(int(match[2]) - 1, f"{part}.{match[3].replace('dwconv.dwconv', 'dwconv')}")


def _hugging_face_mit(key: str) -> str:
    match = re.fullmatch(r"(?:segformer\.)?encoder\.(patch_embeddings|block|layer_norm)\.(\d)\.(.+)", key)
    if not match:
        return key
    part, stage, rest = match.groups()
    if part == "patch_embeddings":
        return _mit_place(stage, f"downsample.{rest.replace('layer_norm', 'norm')}")
    if part == "layer_norm":
        return _mit_place(stage, f"norm.{rest}")
    for theirs, timm in (
        ("layer_norm_", "norm"),
        ("attention.self.query", "attn.q"),
        ("attention.self.key", "attn.k"),
        ("attention.self.value", "attn.v"),
        ("attention.self.sr", "attn.sr"),
        ("attention.self.layer_norm", "attn.norm"),
        ("attention.output.dense", "attn.proj"),
        ("mlp.dense", "mlp.fc"),
        ("dwconv.dwconv", "dwconv"),
    ):
        rest = rest.replace(theirs, timm)
    return _mit_place(stage, f"blocks.{rest}")


def _as_pyramid(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Attention and MLP in timm's shapes: queries alone, keys and values as one, convolutions as matrices."""
    result = {}
    for key, value in weights.items():
        module, _, leaf = key.rpartition(".")
        attention, _, part = module.rpartition(".")
        if part == "qkv":
            width = len(value) // 3
            result[f"{attention}.q.{leaf}"], result[f"{attention}.kv.{leaf}"] = value[:width], value[width:]
        elif part in ("k", "v") and {f"{attention}.k.{leaf}", f"{attention}.v.{leaf}"} <= set(weights):
            both = [weights[f"{attention}.{x}.{leaf}"] for x in "kv"]
            result[f"{attention}.kv.{leaf}"] = torch.cat(both)
        elif module.endswith((".mlp.fc1", ".mlp.fc2")) and value.dim() == 4:
            result[key] = value.flatten(1)
        else:
            result[key] = value
    return result
