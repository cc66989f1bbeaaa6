"""Images and labels decoded once, as bytes in one memory-mapped file."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict
from tqdm import tqdm

from ..files import atomic_write, remove_leftovers
from ..validation import parse, read_json
from .images import decode, open_image
from .labels import read_ids

_INDEX = "index.json"
REMEDY = "make it anew (`fakd data decode`), or leave DATALOADER.DECODED empty"


class _Entry(BaseModel):
    """Where a file's pixels are: bytes ``start`` on of (height, width, channels), and the file it was."""

    model_config = ConfigDict(strict=True, extra="forbid")

    start: int
    shape: list[int]
    size: int
    changed: int


class _Index(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    files: dict[str, _Entry]
    pixels: str = "pixels.bin"  # as every folder named them once


class DecodedFiles:
    """A folder that :func:`write_decoded` wrote.

    Args:
        folder: where the files are.

    Raises:
        FileNotFoundError: there is none, or it was not written to its end.
        ValueError: its index is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        file = self.folder / _INDEX
        if not file.is_file():
            raise FileNotFoundError(
                f"DATALOADER.DECODED: no decoded dataset in '{folder}' (no {_INDEX}): {REMEDY}."
            )
        index = parse(_Index, read_json(file), file)
        self._files, self._pixels = index.files, self.folder / index.pixels

    def read(self, path: str) -> np.ndarray:
        """(H, W, 3) RGB pixels of an image, or (H, W) ids of a label; read-only.

        Raises:
            ValueError: the file is not in the folder, or has changed since, or the folder was written anew.
        """
        found = self._files.get(os.path.abspath(path))
        if found is None:
            raise ValueError(f"DATALOADER.DECODED '{self.folder}' does not hold '{path}': {REMEDY}.")
        if (found.size, found.changed) != _state(path):
            raise ValueError(f"'{path}' has changed since it was decoded (DATALOADER.DECODED): {REMEDY}.")
        # Opened for each file, because a map that is kept would be copied into workers that are spawned.
        try:
            return np.memmap(self._pixels, np.uint8, "r", found.start, tuple(found.shape))
        except FileNotFoundError as error:
            raise ValueError(
                f"DATALOADER.DECODED: '{self._pixels}' is gone, because other pictures were decoded into its "
                "folder since this process began: resume it (--resume), and give other pictures a folder of "
                "their own."
            ) from error
        except ValueError as error:  # it ends before these pixels do
            raise ValueError(
                f"DATALOADER.DECODED: '{self._pixels}' is damaged ({error}): {REMEDY}."
            ) from error

    @contextlib.contextmanager
    def open_image(self, path: str) -> Iterator[Image.Image]:
        """In place of :func:`fakd.data.images.open_image`."""
        yield Image.fromarray(self.read(path))


def write_decoded(records: Iterable[dict], folder: str | Path) -> int:
    """Decodes the images and labels of dataset dicts into a folder; the bytes it takes.

    The file of pixels is named by its content: a training that still reads by the index before finds the same
    bytes there, or no file, and never the pixels of another picture.

    Args:
        records: with ``file_name`` and, of what has labels, ``sem_seg_file_name``.
        folder: is made; what was decoded there before is replaced. One process at a time may write there.

    Raises:
        ValueError: a file cannot be read, or a label needs more than a byte; the message names it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)  # a decoding that was killed leaves gigabytes
    files: dict[str, _Entry] = {}
    digest, unnamed = hashlib.sha256(), folder / f"pixels.{os.getpid()}"
    with atomic_write(unnamed) as out:
        for record in tqdm(list(records), unit="image"):
            for key, read in (("file_name", _read_pixels), ("sem_seg_file_name", _read_bytes)):
                path = os.path.abspath(record[key]) if key in record else ""
                if path and path not in files:
                    pixels, (size, changed) = read(path), _state(path)
                    files[path] = _Entry(
                        start=out.tell(), shape=list(pixels.shape), size=size, changed=changed
                    )
                    content = pixels.tobytes()
                    out.write(content)
                    digest.update(content)
        total = out.tell()
    named = unnamed.rename(folder / f"pixels_{digest.hexdigest()[:16]}.bin")
    with atomic_write(folder / _INDEX, "w") as index:
        index.write(_Index(files=files, pixels=named.name).model_dump_json())
    for old in folder.glob("pixels*.bin"):
        if old != named:
            old.unlink(missing_ok=True)
    return total


def _read_pixels(path: str) -> np.ndarray:
    with open_image(path) as picture:
        return np.asarray(decode(picture))


def _read_bytes(path: str) -> np.ndarray:
    ids = read_ids(path)
    if ids.max(initial=0) > 255:
        raise ValueError(f"The label file '{path}' holds ids above 255, which do not fit into a byte.")
    return ids.astype(np.uint8)


def _state(path: str) -> tuple[int, int]:
    """Size and time of change of a file, by which it is known again."""
    state = os.stat(path)
    return state.st_size, state.st_mtime_ns
