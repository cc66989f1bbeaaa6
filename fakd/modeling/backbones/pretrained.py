"""ImageNet weights of a backbone: all of them, or an error that says what to do."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import timm
from detectron2.utils.file_io import PathManager
from timm.models import adapt_input_conv
from torch import Tensor, nn

from ...checkpoint.checkpointer import load_tensors
from ...checkpoint.layouts import backbone_weights, unwrap

logger = logging.getLogger(__name__)

_KEY = "MODEL.BACKBONE.PRETRAINED"


def create_pretrained(name: str, options: Mapping[str, Any]) -> nn.Module:
    """``timm.create_model`` with the weights of timm's hub.

    Raises:
        ValueError: timm has no weights of this shape, or cannot fetch them.
    """
    cfg = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    source = cfg and (cfg.hf_hub_id or cfg.url or cfg.file)
    shape = sorted({"stem_type", "channels"} & set(options))
    if not cfg or not source or shape:
        reason = f"with {' and '.join(shape)} changed" if shape and source else "at all"
        raise ValueError(
            f"{_KEY} is 'timm', but timm has no weights for {name} {reason}. Set {_KEY} to the path of a "
            "file: for a ResNet-18 with STEM c open-mmlab's resnet18_v1c-b5776b93.pth, with STEM s CIRKD's "
            "resnet18-imagenet.pth; or choose STEM 7x7 and WIDTH 1."
        )
    try:
        net = timm.create_model(name, pretrained=True, **options)
    except (OSError, RuntimeError, ValueError) as error:  # every hub has errors of its own
        if not _is_network_error(error):
            raise
        file = f"model.safetensors (or pytorch_model.bin) of '{cfg.hf_hub_id}'" if cfg.hf_hub_id else cfg.url
        raise ValueError(
            f"The ImageNet weights of {name} could not be fetched: {error}. Fetch {file} where there is a "
            f"network and set {_KEY} to its path here, or to none for random weights."
        ) from error
    logger.info("Loaded the backbone %s from timm's hub: %s.", name, source)
    return net


def _is_network_error(error: BaseException) -> bool:
    """Whether a connection, and not the weights, is at fault."""
    if "size mismatch" in str(error) or "Missing key" in str(error):
        return False
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in ("huggingface_hub", "httpx")


def load_pretrained(net: nn.Module, path: str) -> None:
    """Loads a backbone's weights from a file of timm, torchvision, mmsegmentation, CIRKD or of a MiT.

    Args:
        net: timm's network.
        path: ``.safetensors``, or a file of tensors; what the network has no place for is left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a weight of the network is not there, or has another shape.
    """
    weights = _read(path)
    prefix = "backbone." if any(k.startswith("backbone.") for k in weights) else ""
    weights = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    layout, weights = backbone_weights(weights)
    # timm's feature networks write some dots of its classifiers' names as underscores.
    # Those of its transformers hold the whole network as `model`, which files of weights do not know.
    own = {key.removeprefix("model.").replace("_", "."): key for key in net.state_dict()}
    found: dict[str, Tensor] = {}
    skipped = []
    for key, value in weights.items():
        target = own.get(key.replace("_", "."))
        if target is None:
            skipped.append(key)
        else:
            found[target] = _adapted(value, net.state_dict()[target])
    _check(net, found, path)
    net.load_state_dict(found, strict=False)
    logger.info(
        "Loaded %d weights of the backbone from %s (%s layout); not used: %s; re-initialised: none.",
        len(found),
        path,
        layout,
        ", ".join(skipped) or "none",
    )


def _adapted(value: Tensor, own: Tensor) -> Tensor:
    """The weights of the first convolution for the network's number of channels; others as they are."""
    if value.ndim != 4 or value.shape[1] != 3 or own.ndim != 4 or own.shape[1] == 3:
        return value
    return adapt_input_conv(own.shape[1], value)


def _read(path: str) -> dict[str, Tensor]:
    try:
        return unwrap(load_tensors(PathManager.get_local_path(path)))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{_KEY}: there is no file '{path}'. Give the path of a backbone's weights, 'timm' or 'none'."
        ) from error
    except ValueError as error:
        raise ValueError(f"{_KEY}: {path}: {error}") from error


def _check(net: nn.Module, found: Mapping[str, Tensor], path: str) -> None:
    own = net.state_dict()
    missing = [k for k in own if k not in found and not k.endswith("num_batches_tracked")]
    shapes = [
        f"{k} is {tuple(v.shape)} in the file, {tuple(own[k].shape)} in the network"
        for k, v in found.items()
        if v.shape != own[k].shape
    ]
    if missing or shapes:
        parts = [f"it lacks {len(missing)} weights ({', '.join(missing[:3])}, ...)"] if missing else []
        parts += [f"{len(shapes)} have another shape ({shapes[0]})"] if shapes else []
        raise ValueError(
            f"{_KEY}: {path} does not fit the network: {'; '.join(parts)}. Give a file of the same "
            "architecture (MODEL.BACKBONE.TIMM_NAME, STEM, WIDTH)."
        )
