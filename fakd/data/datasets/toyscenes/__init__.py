"""toyscenes: a small synthetic dataset drawn from a seed, so that everything can be tried without a download.

800 scenes of 128x96 pixels, 12 classes and void. The pictures are drawn at first use, in a few seconds, and
are the same to the byte on every machine. They lie in ``toyscenes/<VERSION>`` in CamVid's layout, below the
datasets' root where that is a writable folder, else below the user's cache.
"""

import hashlib
import logging
import os
import shutil

from iopath.common.file_io import file_lock
from PIL import Image

from ....files import user_cache
from ..folders import datasets_root, list_pairs
from .drawing import CLASSES, VOID, draw_scene

__all__ = ["CLASSES", "SPLITS", "VERSION", "VOID", "draw_scene", "load_toyscenes"]

#: Changes whenever a pixel changes, so that old drawings are never mistaken for new ones.
VERSION = "1.0"

#: split -> seeds of its scenes.
SPLITS = {"train": range(600), "val": range(100_000, 100_200)}

_DIGEST_FILE = "digest.txt"

logger = logging.getLogger(__name__)


def load_toyscenes(split: str) -> list[dict]:
    """Lists one split as detectron2 dataset dicts; draws the whole dataset if it is not there yet.

    Raises:
        FileNotFoundError: the drawing was removed while it was being listed.
    """
    folder = os.path.join(_prepare(), split)
    return list_pairs(folder, f"{folder}annot", "toyscenes is drawn again at the next use.")


def _prepare() -> str:
    """Returns the folder of a complete drawing, drawing it if need be.

    A lock lets one of several processes draw while the others wait. The drawing appears under its name only
    when it is complete, and its digest is checked, so what an interruption leaves is never used.
    """
    candidates = [os.path.join(datasets_root(), "toyscenes", VERSION), str(user_cache("toyscenes") / VERSION)]
    for folder in candidates:
        if _is_complete(folder):
            return folder
    folder = candidates[0] if _is_writable(datasets_root()) else candidates[1]
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    with file_lock(folder):
        if not _is_complete(folder):  # another process may have drawn it while this one waited
            logger.info("Drawing the dataset toyscenes in '%s'", folder)
            partial = f"{folder}.partial"
            for leftover in (partial, folder):
                shutil.rmtree(leftover, ignore_errors=True)
            _draw_all(partial)
            os.replace(partial, folder)
    return folder


def _is_writable(folder: str) -> bool:
    # The mode is checked as well because the superuser may write anywhere: a read-only folder stays as it is.
    return os.path.isdir(folder) and os.access(folder, os.W_OK) and bool(os.stat(folder).st_mode & 0o222)


def _draw_all(folder: str) -> None:
    for split, seeds in SPLITS.items():
        images, labels = os.path.join(folder, split), os.path.join(folder, f"{split}annot")
        os.makedirs(images)
        os.makedirs(labels)
        for number, seed in enumerate(seeds):
            image, label = draw_scene(seed)
            Image.fromarray(image).save(os.path.join(images, f"{number:04d}.png"), compress_level=1)
            Image.fromarray(label).save(os.path.join(labels, f"{number:04d}.png"), compress_level=1)
    with open(os.path.join(folder, _DIGEST_FILE), "w") as handle:
        handle.write(_digest(folder))


def _is_complete(folder: str) -> bool:
    try:
        with open(os.path.join(folder, _DIGEST_FILE)) as handle:
            return handle.read() == _digest(folder)
    except FileNotFoundError:
        return False


def _digest(folder: str) -> str:
    """Digest of all pictures, names and bytes, as they lie on this disk."""
    digest = hashlib.sha256()
    for split, seeds in SPLITS.items():
        for part in (split, f"{split}annot"):
            for number in range(len(seeds)):
                name = f"{part}/{number:04d}.png"
                with open(os.path.join(folder, name), "rb") as handle:
                    digest.update(name.encode())
                    digest.update(handle.read())
    return digest.hexdigest()
