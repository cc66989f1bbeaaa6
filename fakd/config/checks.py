"""Values that a config may not have, and keys that do nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import reduce
from typing import Any

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY

from ..losses.base import ranges_of
from ..ranges import Range
from ..registry import DECODE_HEAD_REGISTRY, DISTILL_LOSS_REGISTRY
from .defaults import KEYS

# Prefixes of detectron2's keys, and the keys that do the same here.
_INSTEAD = {
    "INPUT.MIN_SIZE": "INPUT.BASE_SIZE and INPUT.SCALE_RANGE",
    "INPUT.MAX_SIZE": "INPUT.BASE_SIZE",
    "INPUT.CROP.": "INPUT.CROP.SIZE",
    "MODEL.RESNETS.": "MODEL.BACKBONE.TIMM_NAME, STEM, WIDTH and OUTPUT_STRIDE",
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": "MODEL.SEM_SEG_HEAD.CHANNELS",
    "TEST.AUG.": "TEST.SCALES and TEST.FLIP",
    "VIS_PERIOD": "TEST.EVAL_PERIOD: TensorBoard shows predictions at every evaluation",
}


def ranges() -> dict[str, Range]:
    """The values that each key may have, those of the registered losses among them."""
    losses = {
        f"KD.{name}.{key}": allowed
        for name, loss in DISTILL_LOSS_REGISTRY
        for key, allowed in ranges_of(loss).items()
    }
    return {name: key.range for name, key in KEYS.items() if key.range is not None} | losses


def check_values(cfg: CfgNode) -> None:
    """Refuse values that no run can use, in a config that may have been changed by hand.

    Raises:
        ValueError: one is out of its range; the message names its key and what is allowed.
    """
    for name, allowed in ranges().items():
        allowed.check(name, value_of(cfg, name))
    check_channels(cfg)


def check_channels(cfg: CfgNode) -> None:
    """Refuse keys that are of another number of channels than INPUT.CHANNELS.

    Raises:
        ValueError: one is; the message names it.
    """
    channels = cfg.INPUT.CHANNELS
    for name in ("MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"):
        if len(values := value_of(cfg, name)) != channels:
            raise ValueError(
                f"{name} is {tuple(values)!r}, but must be {channels} values, one for each of INPUT.CHANNELS."
            )
    if channels != 3 and cfg.INPUT.FORMAT != "RGB":
        raise ValueError(f"INPUT.FORMAT BGR is of three channels, but INPUT.CHANNELS is {channels}.")
    if channels != 3 and cfg.INPUT.PHOTOMETRIC:
        raise ValueError(f"INPUT.PHOTOMETRIC is of three channels, but INPUT.CHANNELS is {channels}.")
    if channels != 3 and "colour" in cfg.INPUT.STRONG:
        raise ValueError(
            f"'colour' of INPUT.STRONG is of three channels, but INPUT.CHANNELS is {channels}; 'blur' and "
            "'cutout' are of any."
        )


def check_keys(cfg: CfgNode, source: str, names: Iterable[str]) -> None:
    """Refuse a key of detectron2's that was changed and that nothing here reads.

    A network from elsewhere may read any key of MODEL.

    Args:
        cfg: everything merged.
        source: what names the keys, for the message.
        names: of the keys.

    Raises:
        ValueError: a key does nothing.
    """
    plain = get_cfg()
    for name in sorted(names):
        if name in KEYS or name.startswith("KD.") or _same(value_of(cfg, name), value_of(plain, name)):
            continue
        if name.startswith("MODEL.") and _is_foreign(cfg):
            continue
        ours = next((ours for start, ours in _INSTEAD.items() if name.startswith(start)), "")
        remedy = f"what does it here is {ours}" if ours else "leave it out"
        raise ValueError(f"{source}: {name} is a key of detectron2's that does nothing here; {remedy}.")


def _same(first: Any, second: Any) -> bool:
    """Equality of plain values, in which a list and a tuple are the same."""
    return json.dumps(first, default=str) == json.dumps(second, default=str)


def value_of(cfg: CfgNode, name: str) -> Any:
    """The value of a key given by its full name."""
    return reduce(CfgNode.__getitem__, name.split("."), cfg)


def _is_foreign(cfg: CfgNode) -> bool:
    """Whether a part of the network is none of this package's."""
    parts = (
        (META_ARCH_REGISTRY, cfg.MODEL.META_ARCHITECTURE),
        (BACKBONE_REGISTRY, cfg.MODEL.BACKBONE.NAME),
        (DECODE_HEAD_REGISTRY, cfg.MODEL.SEM_SEG_HEAD.NAME),
    )
    return any(
        name in registry and not registry.get(name).__module__.startswith("fakd.") for registry, name in parts
    )
