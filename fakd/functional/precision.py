"""Mixed precision on any device."""

import contextlib

import torch

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager:
    """Compute in ``dtype`` where that is safe; with None in the dtype of the tensors, within autocast too.

    Devices that know no autocast, such as ``meta``, accept None.

    Raises:
        RuntimeError: a dtype on such a device.
    """
    if dtype is None and not torch.amp.is_autocast_available(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def half_of_device(device: torch.device) -> str:
    """The half precision that a device computes faster than float32, bf16 or fp16; "" if there is none."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type != "cpu":
        return ""
    known = torch.cpu.get_capabilities()
    return "bf16" if known.get("avx512_bf16") or known.get("amx_bf16") or known.get("bf16") else ""
