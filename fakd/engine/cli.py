"""Processes that train together, and how they end."""

import builtins
from collections.abc import Callable
from typing import Any

import torch
from detectron2.engine import launch
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from fakd.errors import USER_ERRORS

from .signals import signals_forwarded


def launch_ranks(main: Callable[..., None], ranks: tuple[int, int, int, str], *args: Any) -> None:
    """Calls ``main(*args)`` here, or in several processes that train together.

    Args:
        main: defined at the top of a module, so that another process finds it.
        ranks: processes on this machine, machines, number of this machine, URL where they meet.

    Raises:
        SystemExit: a signal stopped them; its code is theirs.
    """
    if ranks[0] * ranks[1] == 1:
        main(*args)
        return
    with signals_forwarded():
        try:
            launch(main, *ranks, args=args)
        except ProcessExitedException as error:
            if error.exit_code < 0:  # killed by a signal, which the message names
                raise
            raise SystemExit(error.exit_code) from None
        except ProcessRaisedException as error:
            raise as_raised(error) from error


def as_raised(error: ProcessRaisedException) -> Exception:
    """The user's error that ended a child process, or its lack of memory, read from its traceback; else
    ``error``.
    """
    kind, _, text = str(error).strip().splitlines()[-1].partition(": ")
    if kind == "torch.OutOfMemoryError":
        return torch.OutOfMemoryError(text)
    raised = getattr(builtins, kind, None)
    if not isinstance(raised, type) or not issubclass(raised, USER_ERRORS):
        return error
    if issubclass(raised, KeyError):  # whose text is quoted
        text = text.strip("'\"")
    # A UnicodeError is a ValueError, but takes five arguments.
    return ValueError(text) if issubclass(raised, UnicodeError) else raised(text)
