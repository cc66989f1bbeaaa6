"""The known published networks, with their data and mIoU."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from fakd.files import file_digest
from fakd.validation import read_yaml


@cache
def zoo() -> dict[str, dict[str, Any]]:
    """Entries by published file name.

    Each has ``model`` (a file of ``configs/_base_/models``), ``dataset``, ``mIoU`` in percent on its
    validation images, ``align_corners``, and where it is known ``sha256``, the first digits of the digest.
    """
    return read_yaml(Path(__file__).with_name("zoo.yaml"))


def find(path: str | Path) -> dict[str, Any] | None:
    """The entry of a published file, by its name; None if it is not known."""
    return zoo().get(Path(path).name)


def datasets() -> set[str]:
    """Names of the data the published networks were trained on; those of the splits begin with them."""
    return {entry["dataset"] for entry in zoo().values()}


def check_digest(path: str | Path) -> None:
    """Compares a known file with its published digest.

    Raises:
        ValueError: it is another file, or a part of it.
    """
    expected = (find(path) or {}).get("sha256")
    if not expected:
        return
    digest = file_digest(path)
    if not digest.startswith(expected):
        raise ValueError(
            f"'{path}' has the name of a published file and not its content: its sha256 begins with "
            f"{digest[:8]}, not {expected}. Fetch it again, or give another file another name."
        )
