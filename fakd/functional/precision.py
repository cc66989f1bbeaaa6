"""Mixed precision on any device."""

import contextlib

import torch


def autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager:
    """Compute in ``dtype`` where that is safe; with None in the dtype of the tensors, within autocast too.

    Devices that know no autocast, such as ``meta``, accept None.

    Raises:
        RuntimeError: a dtype on such a device.
    """
    if dtype is None and not torch.amp.is_autocast_available(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype, enabled=dtype is not None)
