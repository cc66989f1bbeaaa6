"""Files that appear whole or not at all, and those that grow by a line at a time."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

_SUFFIX = ".partial"


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


def file_digest(path: str | Path, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of a file's content, by an algorithm of hashlib."""
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file with one per line; a line that a kill tore is skipped."""
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue
