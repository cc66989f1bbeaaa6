"""The device that a run computes on, where there are several."""

import contextlib

import torch


def on_device(device: str) -> contextlib.AbstractContextManager:
    """Within the block, what names no GPU is this one: events, peak memory and the name in a result.

    Without a number it is PyTorch's current GPU anyway, which each of several processes has chosen.

    Args:
        device: as MODEL.DEVICE names it.
    """
    found = torch.device(device)
    if found.type != "cuda" or found.index is None:
        return contextlib.nullcontext()
    return torch.cuda.device(found)
