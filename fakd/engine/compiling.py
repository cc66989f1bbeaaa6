"""The student compiled by ``torch.compile``: SOLVER.COMPILE."""

import logging
import os
import shutil
import sys
import sysconfig
import time
from pathlib import Path

from detectron2.engine import HookBase
from torch import nn

logger = logging.getLogger(__name__)


def missing_for_compiling(device: str) -> str:
    """What ``torch.compile`` for a CPU lacks on this machine, as a clause of a sentence; "" if nothing.

    Args:
        device: as MODEL.DEVICE names it; of others than the CPU nothing is known here.
    """
    if device != "cpu":
        return ""
    kind = "clang++" if sys.platform == "darwin" else "g++"
    compiler = os.environ.get("CXX", kind)
    if shutil.which(compiler) is None:
        return f"there is no C++ compiler '{compiler}' (install g++, or let the variable CXX name one)"
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    if not header.is_file():
        return f"Python's headers are missing ('{header}'; the package is python3-dev)"
    return ""


def compile_network(network: nn.Module) -> None:
    """Has the backbone and the heads compiled at their first call, for maps of one size.

    The losses stay as they are: each is one fused pass with a backward pass of its own.
    """
    for name in ("backbone", "decode_head", "auxiliary_head"):
        if (part := getattr(network, name, None)) is not None:
            part.compile(dynamic=False)


class CompileTime(HookBase):
    """Says that the first step compiles, so that it is not taken for a hang, and how long it took."""

    def before_train(self) -> None:
        self._start: float | None = None

    def before_step(self) -> None:
        if self.trainer.iter == self.trainer.start_iter:
            logger.info("The first step compiles the networks, which takes a minute or several.")
            self._start = time.perf_counter()

    def after_step(self) -> None:
        if self._start is not None:
            logger.info(f"Compiled: the first step took {time.perf_counter() - self._start:.0f} s.")
            self._start = None
