"""Reading of images: at full size, or at a fraction of it that costs less to decode."""

import contextlib
import math
from collections.abc import Iterator
from typing import IO

import numpy as np
from detectron2.data import detection_utils
from detectron2.utils.file_io import PathManager
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

#: EXIF orientations under which a picture is shown with width and height exchanged.
_TURNED = (5, 6, 7, 8)

#: PIL modes of more than 8 bits a channel, whose conversion to 8 bits is ambiguous.
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")


def raw_mode(picture: Image.Image) -> str:
    """How the pixels of an opened file are kept in it, such as "RGB;16B"; "" once they are loaded."""
    for tile in getattr(picture, "tile", []):
        return str(tile[3] if isinstance(tile[3], str) else next(iter(tile[3] or ("",))))
    return ""


def is_cut(picture: Image.Image) -> bool:
    """Whether Pillow would leave 8 of 16 bits: it has no mode for colours of 16, in png and tif."""
    return picture.mode not in DEEP_MODES and ";16" in raw_mode(picture)


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
        with PathManager.open(path, "rb") as handle, _open(handle) as picture:
            yield picture
    except OSError as error:  # few of Pillow's messages name the file
        raise ValueError(f"Cannot read the {what} '{path}': {error}") from error


def _open(handle: IO[bytes]) -> Image.Image:
    try:
        return Image.open(handle)
    except Exception as error:  # of a damaged header Pillow raises more than it documents
        raise OSError(str(error)) from error


def load(picture: Image.Image) -> Image.Image:
    """An opened picture with its pixels decoded, after the check that its file offers.

    A png is read only if all its checksums are right: Pillow skips those of the pixels, and pads what is left
    of a damaged stream. A jpeg has none; it must not end before its pixels do.

    Raises:
        OSError: the file is damaged.
    """
    try:
        if isinstance(picture, PngImageFile) and picture.fp is not None:
            _check_png(picture.fp)
        picture.load()
    except Exception as error:  # here too
        raise OSError(f"it is damaged: {error}") from error
    return picture


def _check_png(file: IO[bytes]) -> None:
    position = file.tell()
    file.seek(0)
    Image.open(file).verify()
    file.seek(position)


def decode(picture: Image.Image, factor: float = 1.0) -> Image.Image:
    """An opened image in colour, its pixels decoded and turned as its EXIF data says.

    Args:
        picture: from :func:`open_image`.
        factor: the share of the size that is needed. A jpeg is decoded at a half, a quarter or an eighth of
            its size where that is enough, which its format allows at a fraction of the time.

    Raises:
        OSError: the pixels cannot be decoded, or have more than 8 bits a channel.
    """
    if picture.mode in DEEP_MODES:
        raise OSError(
            f"its mode is '{picture.mode}', more than 8 bits a channel. Convert it to 8 bits, with the range "
            "of values that suits your data, or set INPUT.CHANNELS to 1"
        )
    if is_cut(picture):
        raise OSError(
            "it has 16 bits a channel, of which Pillow keeps 8. Name its file instead of opening it"
        )
    if factor < 1:
        width, height = picture.size
        picture.draft(None, (math.ceil(width * factor), math.ceil(height * factor)))
    # Loaded first: detectron2's search for EXIF data decodes a png and ignores its errors.
    return detection_utils._apply_exif_orientation(load(picture)).convert("RGB")


def read_image(path: str, image_format: str = "RGB") -> np.ndarray:
    """(H, W, 3) uint8 pixels of an image file, turned as its EXIF data says, in "RGB" or "BGR".

    Raises:
        ValueError: the file cannot be read or is damaged; the message names it.
    """
    with open_image(path) as picture:
        return as_array(decode(picture), image_format)


def as_array(picture: Image.Image, image_format: str) -> np.ndarray:
    """(H, W, 3) uint8 pixels of a decoded image, in "RGB" or "BGR"."""
    return detection_utils.convert_PIL_to_numpy(picture, image_format)


def shown_size(picture: Image.Image | np.ndarray) -> tuple[int, int]:
    """Width and height of a picture as detectron2 reads it, which turns it as its EXIF data says.

    Those of an array are its own.
    """
    if isinstance(picture, np.ndarray):
        return picture.shape[1], picture.shape[0]
    width, height = picture.size
    try:
        # The base class's method looks at the header; that of a png decodes all its pixels first.
        turned = Image.Image.getexif(picture).get(274) in _TURNED
    except Exception:  # detectron2 does not turn what has EXIF data that cannot be read
        turned = False
    return (height, width) if turned else (width, height)


def size_error(record: dict, picture: Image.Image | np.ndarray, label: np.ndarray) -> str:
    """The message for a label whose size differs from that of its opened image."""
    width, height = shown_size(picture)
    is_turned = isinstance(picture, Image.Image) and picture.size != (width, height)
    turned = ", turned as its EXIF data says" if is_turned else ""
    return (
        f"The image '{record['file_name']}' is {width}x{height} pixels (width x height{turned}), its label "
        f"'{record['sem_seg_file_name']}' {label.shape[1]}x{label.shape[0]}. Both must have the same size."
    )
