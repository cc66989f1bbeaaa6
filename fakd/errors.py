"""What a user can cause and fix becomes one line; it imports nothing, so that a command can begin to speak at
once.
"""

import os
import sys
from collections.abc import Callable

# Anything else is a mistake in the program and shows its traceback.
USER_ERRORS = (ValueError, KeyError, OSError, FloatingPointError)


def call_tool(main: Callable[[], int | None]) -> int:
    """Runs a tool; a user's error becomes one clear line and exit code 1, unless FAKD_TRACEBACK is set."""
    try:
        return main() or 0
    except USER_ERRORS as error:
        if os.environ.get("FAKD_TRACEBACK"):
            raise
        print(f"error: {message_of(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


def message_of(error: BaseException) -> str:
    """What to tell the user: the message without the quotes of KeyError or the traceback of a data worker."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if text.startswith("Caught "):  # re-raised from a worker process of a data loader
        text = text.strip().splitlines()[-1].split(": ", 1)[-1]
    return text or repr(error)
