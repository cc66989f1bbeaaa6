"""SIGTERM and Ctrl-C mean stop, wherever they arrive: at once, or in training after the step."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

_STOPS = (signal.SIGTERM, signal.SIGINT)
_ONE_STOP = 1.0  # seconds: a stopped process group often gets the signal twice


@dataclass
class _Received:
    """What a process was sent; ``raised``: the exception that ends it is on its way."""

    pid: int = 0
    number: int = 0
    time: float = 0.0
    deferred: bool = False
    raised: bool = False


_received = _Received()  # the process's, as its handlers are


@contextlib.contextmanager
def stop_on_signals() -> Iterator[None]:
    """Within the block SIGTERM and Ctrl-C raise SystemExit(128 + number); such blocks may be nested.

    What hides the exception does not keep the block from ending with it. Does nothing outside the main
    thread, where Python allows no handlers.

    Raises:
        SystemExit: a signal came.
    """
    global _received
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {}
    if signal.getsignal(signal.SIGTERM) is not _handle:
        _received = _Received(os.getpid())
        previous = {number: signal.signal(number, _handle) for number in _STOPS}
    try:
        yield
    except Exception as error:
        if _received.raised:
            raise SystemExit(128 + _received.number) from error
        raise
    else:
        if _received.number:
            raise SystemExit(128 + _received.number)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler or signal.SIG_DFL)


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """Within the block a signal is kept for :func:`received_signal`; a second one, later, ends it at once.

    Raises:
        SystemExit: a signal came.
    """
    with stop_on_signals():
        _received.deferred = True
        try:
            yield
        finally:
            _received.deferred = False


def received_signal() -> int:
    """The number of the signal that came since the outermost block began; 0 if none did."""
    return _received.number


@contextlib.contextmanager
def signals_forwarded() -> Iterator[None]:
    """Within the block the signals are the child processes', which save and end; this process waits."""
    with contextlib.ExitStack() as handlers:
        for number in _STOPS:
            handlers.callback(signal.signal, number, signal.signal(number, _forward))
        yield


def _handle(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _received.pid:  # a data worker, which was forked a moment ago
        return
    again = _received.number != 0
    if again and time.monotonic() - _received.time < _ONE_STOP:
        return
    _received.number, _received.time = number, time.monotonic()
    if again or not _received.deferred:
        _received.raised = True
        raise SystemExit(128 + number)


def _forward(number: int, frame: FrameType | None) -> None:
    children = multiprocessing.active_children()
    if not children:
        raise SystemExit(128 + number)
    for child in children:
        if child.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, number)
