"""Logging that begins and ends with a run."""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

# ``extra`` of a log record that is too long for the console.
FILE_ONLY = {"file_only": True}

_NAMES = ("detectron2", "fvcore", "fakd")


@contextlib.contextmanager
def run_logging(folder: str, quiet: bool = False, bar: tqdm | None = None) -> Iterator[None]:
    """detectron2's loggers, whose handlers go when the block ends.

    Without that, a second run in the same process would also write into the first one's log.

    Args:
        folder: where ``log.txt`` lies; "" for the console alone.
        quiet: show only warnings on the console.
        bar: a progress bar on the console, above which lines must be written.

    Raises:
        OSError: ``log.txt`` cannot be written.
    """
    loggers = [logging.getLogger(name) for name in _NAMES]
    before = [list(each.handlers) for each in loggers]
    setup_logger.cache_clear()  # it adds handlers only once per folder
    try:
        for name, each in zip(_NAMES, loggers, strict=True):
            # Not the file too: its stream would stay open as long as the process, and in use for the folder.
            setup_logger(None, comm.get_rank(), name=name, configure_stdout=not quiet)
            if quiet and comm.is_main_process():
                each.addHandler(_BarHandler(logging.WARNING))
            for handler in each.handlers:
                if getattr(handler, "stream", None) is sys.stdout:
                    handler.addFilter(_for_console)
        with contextlib.ExitStack() as held:
            if folder:
                held.enter_context(file_logging(folder))
            if bar is not None and not quiet:
                held.enter_context(logging_redirect_tqdm(loggers))
            yield
    finally:
        for each, handlers in zip(loggers, before, strict=True):
            each.handlers[:] = handlers


@contextlib.contextmanager
def file_logging(folder: str, wanted: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """``log.txt`` of a run, which is closed when the block ends; within :func:`run_logging`.

    Args:
        folder: where it lies.
        wanted: whether what is being logged belongs there.

    Raises:
        OSError: it cannot be written.
    """
    rank = comm.get_rank()
    path = Path(folder, f"log.txt.rank{rank}" if rank else "log.txt")
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    line = "[%(asctime)s] %(name)s %(levelname)s: %(message)s"  # as detectron2 writes it
    handler.setFormatter(logging.Formatter(line, datefmt="%m/%d %H:%M:%S"))
    handler.addFilter(lambda record: wanted())
    loggers = [logging.getLogger(name) for name in _NAMES]
    for each in loggers:
        each.addHandler(handler)
    try:
        yield
    finally:
        for each in loggers:
            each.removeHandler(handler)
        handler.close()


class _BarHandler(logging.Handler):
    """Writes above a progress bar instead of into it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def _for_console(record: logging.LogRecord) -> bool:
    # The trainer logs every exception on its way out; the console shows it once, in words, at the end.
    return record.exc_info is None and not getattr(record, "file_only", False)
