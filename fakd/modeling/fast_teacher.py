"""Forms of a frozen network that cost less time and give the same maps up to rounding."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..functional.precision import HALVES
from .segmentor import Segmentor

FORMS = ("fold", "channels_last", *HALVES, "compile")


def half_of(form: Sequence[str]) -> torch.dtype | None:
    """The half precision that a form computes in; None: float32."""
    return next((HALVES[word] for word in form if word in HALVES), None)


def in_form(network: Segmentor, form: Sequence[str]) -> Segmentor:
    """A copy of a network without its auxiliary head, in a form for evaluation without gradients.

    Args:
        network: in eval mode; it stays as it is.
        form: of :data:`FORMS`: batch norm folded into convolutions, channels side by side in memory, weights
            in half precision, compiled at the first call (which then takes a minute).
    """
    fast = copy.deepcopy(network)
    fast.auxiliary_head = None
    if "fold" in form:
        fold_batch_norm(fast)
    for part in (fast.backbone, fast.decode_head):
        if (half := half_of(form)) is not None:
            part.to(half)
        if "channels_last" in form:
            part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if "compile" in form:
            part.compile()
    return fast.requires_grad_(False).eval()


def fold_batch_norm(module: nn.Module) -> int:
    """Folds every batch norm that stands behind its convolution into it; the number of them.

    A batch norm belongs to the convolution, or the sequence that ends with one, that was registered just
    before it in the same module, if their channels match: all networks here compute in that order. Whoever
    uses this compares maps, because a foreign network need not.
    """
    count = 0
    owner, last = module, ""  # where the convolution is that a batch norm may belong to
    for name, child in list(module.named_children()):
        conv = getattr(owner, last, None)
        if (
            isinstance(conv, nn.Conv2d)
            and isinstance(child, nn.BatchNorm2d)
            and child.num_features == conv.out_channels
            and child.track_running_stats
        ):
            setattr(owner, last, fuse_conv_bn_eval(conv, child))
            # timm's batch norm holds the dropout and the activation behind it.
            rest = [part for key in ("drop", "act") if (part := getattr(child, key, None)) is not None]
            setattr(module, name, nn.Sequential(*rest))
            count += 1
        else:
            count += fold_batch_norm(child)
        owner, last = module, name
        while isinstance(inner := getattr(owner, last), nn.Sequential) and len(inner):
            owner, last = inner, list(inner._modules)[-1]
    return count


def agreement(logits: Tensor, plain: Tensor) -> tuple[float, float]:
    """The share of pixels with the same arg-max, and the largest difference over the largest logit.

    Args:
        logits: (N, K, h, w).
        plain: what they should be.
    """
    same = (logits.argmax(1) == plain.argmax(1)).double().mean()
    error = (logits.double() - plain).abs().max() / plain.abs().max().clamp_min(1e-12)
    return same.item(), error.item()
