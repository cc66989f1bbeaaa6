"""Images that are arrays of measured values: of more than 8 bits, or of other than three channels."""

from types import ModuleType

import cv2
import numpy as np
from detectron2.data import detection_utils
from detectron2.utils.file_io import PathManager

from .images import DEEP_MODES, is_cut, load, open_image, raw_mode, read_image, shown_size

_TIF = (".tif", ".tiff")


def is_array(path: str, channels: int = 3) -> bool:
    """Whether :func:`read_array` reads a file, and not Pillow as a picture in colour.

    Args:
        path: of the file.
        channels: INPUT.CHANNELS.
    """
    if channels != 3 or path.lower().endswith(".npy"):
        return True
    return path.lower().endswith(_TIF) and not _is_of_bytes(path) or _is_deep_png(path)


def _is_deep_png(path: str) -> bool:
    """Whether a file is a png in colour of 16 bits; a grey one is no picture in colour."""
    if not path.lower().endswith(".png"):
        return False
    try:
        with open_image(path) as picture:
            return is_cut(picture)
    except ValueError:  # told by who reads it
        return False


def _is_of_bytes(path: str) -> bool:
    """Whether Pillow reads a file, with 8 bits a channel."""
    try:
        with open_image(path) as picture:
            return picture.mode not in DEEP_MODES and not is_cut(picture)
    except ValueError:  # it knows few kinds of tif
        return False


def read_array(path: str, channels: int | None = None) -> np.ndarray:
    """(H, W, C) values as they stand in a file: three channels of bytes as uint8, all else as float32.

    Args:
        path: of an ``.npy`` of shape (H, W) or (H, W, C), of a tif of one image in any order of its axes, or
            of a picture that Pillow reads.
        channels: C, INPUT.CHANNELS; None for any.

    Raises:
        ValueError: the file cannot be read, is no image of numbers that are finite, or has another C; the
            message names it.
    """
    try:
        values = _values(path)
    except Exception as error:  # of a damaged file each reader raises more than it documents
        raise ValueError(f"Cannot read the image '{path}': {error}") from error
    if values.ndim == 2:
        values = values[..., None]
    if channels == 3 and values.shape[2:] == (4,) and path.lower().endswith(".png"):
        values = values[..., :3]  # without transparency, as of 8 bits
    if values.ndim != 3 or values.dtype.kind not in "uif" or not values.size:
        raise ValueError(
            f"The image '{path}' is {values.shape} of {values.dtype}, but must be (height, width, channels) "
            "of numbers."
        )
    if channels not in (None, values.shape[2]):
        raise ValueError(
            f"The image '{path}' has {values.shape[2]} channels, but INPUT.CHANNELS is {channels}. Set that, "
            "or 'channels' in the dataset's yaml, and as many values of MODEL.PIXEL_MEAN and PIXEL_STD."
        )
    if values.dtype == np.uint8 and values.shape[2] == 3:
        return values
    if not np.isfinite(values).all():
        raise ValueError(f"The image '{path}' holds values that are not finite. Fill its gaps with a number.")
    return values.astype(np.float32)


def array_size(path: str) -> tuple[int, int]:
    """Width and height of an image that may be an array, from its header.

    Raises:
        ValueError: the file cannot be read; the message names it.
    """
    if not is_array(path):
        with open_image(path) as picture:
            return shown_size(picture)
    try:
        if path.lower().endswith(".npy"):
            height, width = np.load(PathManager.get_local_path(path), mmap_mode="r").shape[:2]
            return width, height
        if not path.lower().endswith(_TIF):
            with open_image(path) as picture:
                return picture.size
        with _tifffile().TiffFile(PathManager.get_local_path(path)) as file:
            sides = dict(zip(file.series[0].axes, file.series[0].shape, strict=True))
        return sides["X"], sides["Y"]
    except Exception as error:  # as above
        raise ValueError(f"Cannot read the image '{path}': {error}") from error


def read_shown(path: str) -> np.ndarray:
    """(H, W, 3) uint8 to look at: a picture's colours, or the first three channels of an array.

    Each channel is stretched from its 2nd to its 98th percentile; fewer than three are shown in grey.

    Raises:
        ValueError: the file cannot be read; the message names it.
    """
    if path.lower().endswith(".npy") or not _is_of_bytes(path):
        return stretched(read_array(path))
    return read_image(path)


def stretched(values: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 to look at, of (H, W, C) values; bytes in three channels stay as they are."""
    if values.dtype == np.uint8 and values.shape[2] == 3:
        return values
    shown = values[..., :3] if values.shape[2] >= 3 else values[..., [0, 0, 0]]
    low, high = np.percentile(shown, (2, 98), axis=(0, 1))
    return (255 * ((shown - low) / np.maximum(high - low, 1e-6)).clip(0, 1)).astype(np.uint8)


def _values(path: str) -> np.ndarray:
    local = PathManager.get_local_path(path)
    if path.lower().endswith(".npy"):
        return np.load(local, allow_pickle=False)
    if not path.lower().endswith(_TIF):
        with open_image(path) as picture:
            if picture.mode == "P":
                raise ValueError("its pixels are indices of a palette")
            deep, has_grey = is_cut(picture), raw_mode(picture).startswith("LA")
            values = np.asarray(detection_utils._apply_exif_orientation(load(picture)))  # and checks the file
        return _deep_colours(local, has_grey) if deep else values
    with _tifffile().TiffFile(local) as file:
        values, axes = file.series[0].asarray(), file.series[0].axes
    others = [i for i, axis in enumerate(axes) if axis not in "YX"]
    return values.transpose(axes.index("Y"), axes.index("X"), *others)


def _deep_colours(path: str, has_grey: bool) -> np.ndarray:
    """(H, W, C) uint16 of a png, red first; ``has_grey``: of grey and transparency."""
    values = cv2.imread(path, cv2.IMREAD_UNCHANGED)  # blue, green, red, transparency
    if values is None:
        raise ValueError("OpenCV cannot read it")
    return np.take(values, [0, 3] if has_grey else [2, 1, 0, 3][: values.shape[2]], axis=2)


def _tifffile() -> ModuleType:
    try:
        import tifffile
    except ImportError as error:
        raise ValueError("tifffile is not installed: pip install 'fakd[tiff]'") from error
    return tifffile
