"""Reading of label pictures: the one place where a file becomes class ids."""

import numpy as np
from detectron2.utils.file_io import PathManager
from PIL import Image

#: PIL modes whose pixels are plain class ids; colour pictures would need a palette nobody gave us.
INDEX_MODES = ("P", "L", "I", "I;16", "I;16B")


def read_label(path: str, ignore_label: int = 255, ignore_value: int = 255) -> np.ndarray:
    """Reads a label picture as class ids.

    Args:
        path: a single-channel picture (palette, 8 bit or 16 bit); its raw indices are the ids.
        ignore_label: the id that means "void" in the file (``ignore_label`` of the dataset's metadata).
        ignore_value: the id that means "void" in the result.

    Returns:
        (H, W) int64, class ids, with ``ignore_value`` where the file holds ``ignore_label``.

    Raises:
        ValueError: the file cannot be read or is not single-channel; the message names it.
    """
    try:
        with PathManager.open(path, "rb") as handle, Image.open(handle) as picture:
            mode, label = picture.mode, np.array(picture)
    except OSError as error:
        raise ValueError(f"Cannot read the label file '{path}': {error}") from error
    if mode not in INDEX_MODES:
        raise ValueError(
            f"The label file '{path}' has mode '{mode}', but class ids need a single-channel picture "
            f"(one of {', '.join(INDEX_MODES)}). Convert it so that each pixel holds its class id."
        )
    label = label.astype(np.int64)
    label[label == ignore_label] = ignore_value
    return label
