"""Reading of images: at full size, or at a fraction of it that costs less to decode."""

import contextlib
import math
from collections.abc import Iterator

import numpy as np
from detectron2.data import detection_utils
from detectron2.utils.file_io import PathManager
from PIL import Image

#: EXIF orientations under which a picture is shown with width and height exchanged.
_TURNED = (5, 6, 7, 8)

#: PIL modes of more than 8 bits a channel, which nobody can say how to bring into 8.
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")

#: What Pillow raises of files that are no pictures, or damaged, or beyond the size it holds for honest.
_UNREADABLE = (OSError, SyntaxError, Image.DecompressionBombError)


@contextlib.contextmanager
def open_image(path: str, what: str = "image") -> Iterator[Image.Image]:
    """An opened picture, whose pixels are not decoded yet.

    Args:
        path: of the file.
        what: the word for it in errors.

    Raises:
        ValueError: the file cannot be read, now or in the block; the message names it.
    """
    try:
        with PathManager.open(path, "rb") as handle, Image.open(handle) as picture:
            yield picture
    except _UNREADABLE as error:  # few of Pillow's messages name the file
        raise ValueError(f"Cannot read the {what} '{path}': {error}") from error


def decode(picture: Image.Image, factor: float = 1.0) -> Image.Image:
    """An opened image in colour, its pixels decoded and turned as its EXIF data says.

    Args:
        picture: from :func:`open_image`.
        factor: the share of the size that is needed. A jpeg is decoded at a half, a quarter or an eighth of
            its size where that is enough, which its format allows at a fraction of the time.

    Raises:
        OSError: the pixels cannot be decoded, or have more than 8 bits a channel.
    """
    if picture.mode in _DEEP_MODES:
        raise OSError(
            f"its mode is '{picture.mode}', more than 8 bits a channel. Convert it to 8 bits, with the range "
            "of values that suits your data"
        )
    if factor < 1:
        width, height = picture.size
        picture.draft(None, (math.ceil(width * factor), math.ceil(height * factor)))
    return detection_utils._apply_exif_orientation(picture).convert("RGB")


def as_array(picture: Image.Image, image_format: str) -> np.ndarray:
    """(H, W, 3) uint8 pixels of a decoded image, in "RGB" or "BGR"."""
    return detection_utils.convert_PIL_to_numpy(picture, image_format)


def shown_size(picture: Image.Image) -> tuple[int, int]:
    """Width and height of a picture as detectron2 reads it, which turns it as its EXIF data says."""
    width, height = picture.size
    # The base class's method looks at the header; that of a png decodes all its pixels first.
    turned = Image.Image.getexif(picture).get(274) in _TURNED
    return (height, width) if turned else (width, height)


def size_error(record: dict, picture: Image.Image, label: np.ndarray) -> str:
    """What to say of a label that has another size than its opened image."""
    width, height = shown_size(picture)
    turned = "" if picture.size == (width, height) else ", turned as its EXIF data says"
    return (
        f"The image '{record['file_name']}' is {width}x{height} pixels (width x height{turned}), its label "
        f"'{record['sem_seg_file_name']}' {label.shape[1]}x{label.shape[0]}. Both must have the same size."
    )
