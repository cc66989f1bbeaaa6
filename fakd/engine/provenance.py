"""Provenance stored with every result: code, versions, machine and cost."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import detectron2
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def collect(network: nn.Module, size: tuple[int, int], device: str) -> dict[str, Any]:
    """What a result says of the code, the machine, and the network's cost.

    Args:
        network: under detectron2's contract.
        size: height and width of the image the cost is counted for.
        device: the network's.
    """
    params, gflops = cost(network, size)
    return {
        "params": params,
        "gflops": gflops,
        "flops_size": list(size),
        "commit": commit(),
        "machine": machine(device),
        "versions": versions(),
    }


def commit() -> str | None:
    """Short commit of the checkout this package runs from, "+changes" if edited.

    Returns:
        None outside a checkout, or where git does not answer, such as on a slow file system.
    """
    root = Path(__file__).parents[2]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()

    try:
        # An installed copy may be inside the checkout of another project.
        git("ls-files", "--error-unmatch", "fakd/__init__.py")
        edited = git("status", "--porcelain", "-uno")
        return f"{git('rev-parse', '--short', 'HEAD')}{'+changes' if edited else ''}"
    except (OSError, subprocess.SubprocessError):
        return None


def machine(device: str) -> str:
    """The accelerator, or the processors, a run used."""
    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} x {cpu_name()}, CPU"


def cpu_name() -> str:
    """The model name of the processors as Linux reports it, else their architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of what computes, by name."""
    return {
        "torch": torch.__version__,
        "detectron2": detectron2.__version__,
        "python": platform.python_version(),
    }


def cost(network: nn.Module, size: tuple[int, int]) -> tuple[int, float]:
    """What the network costs in use, its auxiliary head left out.

    Args:
        network: under detectron2's contract, on its device.
        size: height and width of the image.

    Returns:
        Number of parameters, and 10^9 multiply-adds for one image, each counted once.
    """
    params = sum(
        p.numel() for name, p in network.named_parameters() if not name.startswith("auxiliary_head.")
    )
    was_training = network.training
    network.eval()
    channels = len(network.pixel_mean)  # type: ignore[arg-type]  # detectron2's networks have it too
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(
            [{"image": torch.zeros(channels, *size, dtype=torch.uint8), "height": size[0], "width": size[1]}]
        )
    network.train(was_training)
    return params, counter.get_total_flops() / 2e9  # the counter counts a multiply-add as two


def reset_peak_memory(device: str) -> None:
    """Starts a new measurement of :func:`peak_memory_mb`."""
    if device != "cpu" and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak of the resident set


def peak_memory_mb(device: str) -> float | None:
    """Peak of allocated memory on the accelerator, else of this process's resident set; None if unknown."""
    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    peak = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(peak[0].split()[1]) / 1024 if peak else None
