"""The two registries of this project. Backbones and meta architectures live in detectron2's own."""

from typing import Any

from fvcore.common.registry import Registry

DISTILL_LOSS_REGISTRY = Registry("DISTILL_LOSS")
DISTILL_LOSS_REGISTRY.__doc__ = """
Distillation losses, subclasses of :class:`fakd.losses.DistillLoss`.

The class name is the name in ``KD.LOSSES``, the config node ``KD.<ClassName>``, the logged key
``loss_<ClassName>`` and the column in a report. A loss is called with
:class:`fakd.structures.LossInputs` in float32, outside autocast, and returns an unweighted scalar
that is zero, with a gradient, when no pixel takes part.
"""

DECODE_HEAD_REGISTRY = Registry("DECODE_HEAD")
DECODE_HEAD_REGISTRY.__doc__ = """
Decode heads, subclasses of :class:`fakd.modeling.DecodeHead`.

A head maps the backbone's maps to the feature in front of its classifier and classifies it with
one 1x1 convolution, ``conv_seg``. It never up-samples its scores and computes no loss.
"""


def lookup(registry: Registry, name: str, key: str) -> Any:
    """The object registered as ``name``.

    Raises:
        KeyError: ``name`` is unknown; the message names the config ``key`` and the known names.
    """
    known = sorted(n for n, _ in registry)
    if name not in known:
        raise KeyError(f"{key}: '{name}' is not a registered name. Known: {', '.join(known)}.")
    return registry.get(name)
