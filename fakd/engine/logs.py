"""Logging that begins and ends with a run."""

import contextlib
import logging
import sys
from collections.abc import Iterator

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
    """
    loggers = [logging.getLogger(name) for name in _NAMES]
    before = [list(each.handlers) for each in loggers]
    setup_logger.cache_clear()  # it adds handlers only once per folder
    for name, each in zip(_NAMES, loggers, strict=True):
        setup_logger(folder or None, comm.get_rank(), name=name, configure_stdout=not quiet)
        if quiet and comm.is_main_process():
            each.addHandler(_BarHandler(logging.WARNING))
        for handler in each.handlers:
            if getattr(handler, "stream", None) is sys.stdout:
                handler.addFilter(_for_console)
    try:
        with logging_redirect_tqdm(loggers) if bar is not None and not quiet else contextlib.nullcontext():
            yield
    finally:
        for each, handlers in zip(loggers, before, strict=True):
            each.handlers[:] = handlers


class _BarHandler(logging.Handler):
    """Writes above a progress bar instead of into it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def _for_console(record: logging.LogRecord) -> bool:
    # The trainer logs every exception on its way out; the console shows it once, in words, at the end.
    return record.exc_info is None and not getattr(record, "file_only", False)
