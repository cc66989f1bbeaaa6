"""How command line tools end."""

import builtins
import os
import sys
from collections.abc import Callable
from typing import Any

from detectron2.engine import launch
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from .signals import signals_forwarded

# What a user can cause and fix. Anything else is a mistake in the program and shows its traceback.
_USER_ERRORS = (ValueError, KeyError, OSError, FloatingPointError)


def call_tool(main: Callable[[], int | None]) -> int:
    """Runs a tool; a user's error becomes one clear line and exit code 1, unless FAKD_TRACEBACK is set."""
    try:
        return main() or 0
    except _USER_ERRORS as error:
        if os.environ.get("FAKD_TRACEBACK"):
            raise
        print(f"error: {message_of(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


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
            raise _as_raised(error) from error


def _as_raised(error: ProcessRaisedException) -> Exception:
    """The user's error that ended a process, whose traceback is all that is left of it; else ``error``."""
    kind, _, text = str(error).strip().splitlines()[-1].partition(": ")
    raised = getattr(builtins, kind, None)
    if isinstance(raised, type) and issubclass(raised, _USER_ERRORS):
        return raised(text.strip("'\""))
    return error


def message_of(error: BaseException) -> str:
    """What to tell the user: the message without the quotes of KeyError or the traceback of a data worker."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if text.startswith("Caught "):  # re-raised from a worker process of a data loader
        text = text.strip().splitlines()[-1].split(": ", 1)[-1]
    return text or repr(error)
