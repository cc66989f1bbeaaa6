"""Reading of images: at full size, or at a fraction of it that costs less to decode."""

import contextlib
import math
from collections.abc import Iterator

import numpy as np
from detectron2.data import detection_utils
from detectron2.utils.file_io import PathManager
from PIL import Image


@contextlib.contextmanager
def open_image(path: str) -> Iterator[Image.Image]:
    """An opened image, whose pixels are not decoded yet.

    Raises:
        ValueError: the file cannot be read, now or in the block; the message names it.
    """
    try:
        with PathManager.open(path, "rb") as handle, Image.open(handle) as picture:
            yield picture
    except OSError as error:  # Pillow's "truncated" errors do not name the file
        raise ValueError(f"Cannot read the image '{path}': {error}") from error


def decode(picture: Image.Image, image_format: str, factor: float = 1.0) -> np.ndarray:
    """The pixels of an opened image, turned as its EXIF data says.

    Args:
        picture: from :func:`open_image`.
        image_format: "RGB" or "BGR".
        factor: the share of the size that is needed. A jpeg is decoded at a half, a quarter or an eighth of
            its size where that is enough, which its format allows at a fraction of the time.

    Returns:
        (H, W, 3) uint8.
    """
    if factor < 1:
        width, height = picture.size
        picture.draft(None, (math.ceil(width * factor), math.ceil(height * factor)))
    return detection_utils.convert_PIL_to_numpy(
        detection_utils._apply_exif_orientation(picture), image_format
    )
