"""Files that appear whole or not at all or grow by whole lines, and folders for one process at a time."""

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

logger = logging.getLogger(__name__)

_SUFFIX = ".partial"
_HELD = (errno.EWOULDBLOCK, errno.EACCES)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def shipped(path: str) -> str:
    """A path as it is, or that of the file of this name that comes with the package, if only that is there.

    ``configs/toyscenes/student.yaml`` or ``toyscenes/student.yaml``, ``recipes/cwd.yaml`` and
    ``projects/...`` are thus found from every folder.
    """
    package = Path(__file__).parent
    places = [] if Path(path).exists() else [package / part / path for part in ("", "configs", "config")]
    return next((str(place) for place in places if place.is_file()), path)


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Opens a file that takes the name ``path`` when the block ends well, and vanishes when it does not.

    The bytes are on the disk before the name changes hands, so whatever interrupts the writer, ``path`` is
    either the old file or the whole new one.

    Args:
        path: final name; the temporary file lies in the same folder.
        mode: "wb" or "w".

    Raises:
        OSError: the file cannot be written; the message names ``path``.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}{_SUFFIX}")
    try:
        with open(temporary, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, f"cannot write '{path}': {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: str | Path) -> None:
    """Deletes the temporary files that killed writers left in ``folder``."""
    for leftover in Path(folder).glob(f"*{_SUFFIX}"):
        leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive_lock(folder: str | Path, patience: float) -> Iterator[None]:
    """Keeps every other process that asks for the same folder out of the block.

    The lock ends with its process, however that ends. It is a lock on ``<folder>/.lock``, whose text says who
    holds it. On a file system without locks the block runs all the same, and a warning says so.

    Args:
        folder: made if it is not there.
        patience: seconds to wait for another process, which may be about to end.

    Raises:
        TimeoutError: another process still holds the folder; the message names folder, process and host.
        OSError: the folder cannot be written, or its file system reports an error; the message names it.
    """
    path = Path(folder, ".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as file:
        locked = _acquire(file, path, patience)
        with contextlib.suppress(OSError):  # of a full disk; the lock is none the worse for it
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}".encode())
        try:
            yield
        finally:
            if locked:
                # Closing is not enough: child processes share the open file, and with it the lock.
                fcntl.flock(file, fcntl.LOCK_UN)


def _acquire(file: IO[str], path: Path, patience: float) -> bool:
    """Whether the file could be locked; False where its file system has no locks."""
    end = time.monotonic() + patience
    waiting = False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in _NO_LOCKS:
                logger.warning(
                    f"The file system of '{path.parent}' has no locks ({error.strerror}): nothing keeps a "
                    "second run out of this folder."
                )
                return False
            if error.errno not in _HELD:
                raise OSError(error.errno, f"cannot lock '{path}': {error.strerror}") from error
        file.seek(0)
        holder = file.read() or "another process"
        if time.monotonic() > end:
            raise TimeoutError(
                f"'{path.parent}' is in use: {holder} trains there. End it first, or choose another "
                "OUTPUT_DIR."
            )
        if not waiting:
            logger.warning(f"'{path.parent}' is in use by {holder}; waiting up to {patience:.0f} seconds.")
            waiting = True
        time.sleep(0.2)


def file_digest(path: str | Path, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of a file's content, by an algorithm of hashlib."""
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def append_line(path: Path, content: dict[str, Any]) -> None:
    """Adds a line of JSON, whole or not at all as long as one process writes.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(content).encode() + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":  # a kill tore the line before
            line = b"\n" + line
        if os.write(descriptor, line) < len(line):
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, f"cannot write '{path}': {os.strerror(errno.ENOSPC)}")
    finally:
        os.close(descriptor)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file with one per line; a line that a kill tore is skipped."""
    if path.exists():
        for line in path.read_bytes().splitlines():  # one bad byte must not cost the other lines
            try:
                yield json.loads(line)
            except ValueError:
                continue


def user_cache(name: str) -> Path:
    """The folder for what can be drawn or fetched again, in the user's cache; it may not exist yet."""
    root = os.getenv("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(root, "fakd", name)
