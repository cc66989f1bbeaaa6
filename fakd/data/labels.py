"""Reading of label pictures: the one place where a file becomes class ids."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from detectron2.data import Metadata

from .images import load, open_image, raw_mode

#: PIL modes whose pixels are plain class ids; colour pictures would need a palette.
INDEX_MODES = ("P", "L", "I", "I;16", "I;16B")
#: PIL formats that change ids by compression. That webp has colours alone is told by its mode.
_LOSSY = ("JPEG", "MPO")
#: What Pillow multiplies the greys of 2 and 4 bits by, which a label has as ids.
_STRETCHED = {"L;2": 85, "L;4": 17}


def read_label(
    path: str,
    ignore_label: int = 255,
    ignore_value: int = 255,
    id_map: Mapping[int, int] | None = None,
) -> np.ndarray:
    """Reads a label picture as class ids.

    Args:
        path: a single-channel picture (palette, 8 bit or 16 bit); its raw indices are the ids.
        ignore_label: the id that means "void" (``ignore_label`` of the dataset's metadata).
        ignore_value: the id that means "void" in the result.
        id_map: from the ids in the file to class ids or ``ignore_label``, where the two differ (``id_map``
            of the dataset's metadata). ``ignore_label`` stays what it is unless the map says otherwise.

    Returns:
        (H, W) int64, class ids, with ``ignore_value`` for void.

    Raises:
        ValueError: the file cannot be read, is not single-channel, or holds an id that ``id_map`` lacks; the
            message names it.
    """
    label = read_ids(path)
    if id_map is not None:
        label = map_ids(label, {ignore_label: ignore_label, **id_map}, path)
    label = label.astype(np.int64)
    label[label == ignore_label] = ignore_value
    return label


def label_reader(metadata: Metadata) -> Callable[[str], np.ndarray]:
    """:func:`read_label` for the files of a registered dataset; void keeps the dataset's own id."""
    void = metadata.ignore_label
    return partial(read_label, ignore_label=void, ignore_value=void, id_map=metadata.get("id_map"))


def read_ids(path: str) -> np.ndarray:
    """(H, W) ids as they stand in a label picture, in its own integer type.

    Raises:
        ValueError: the file cannot be read, is a jpeg, is not single-channel, or holds negative ids; the
            message names it.
    """
    with open_image(path, "label file") as picture:
        if picture.format in _LOSSY:
            raise ValueError(
                f"The label file '{path}' is a {picture.format}, which loses ids by compression: it "
                "blends those of neighbouring pixels. Save the label as png, from the original and not "
                "from this file."
            )
        mode, stretch = picture.mode, _STRETCHED.get(raw_mode(picture), 1)
        label = np.array(load(picture))
    if mode not in INDEX_MODES:
        raise ValueError(
            f"The label file '{path}' has mode '{mode}', but class ids need a single-channel picture "
            f"(one of {', '.join(INDEX_MODES)}). Convert it so that each pixel holds its class id."
        )
    if label.dtype.kind == "i" and label.min(initial=0) < 0:
        raise ValueError(f"The label file '{path}' holds negative ids, down to {label.min()}.")
    return label if stretch == 1 else label // stretch


def map_ids(label: np.ndarray, id_map: Mapping[int, int], path: str) -> np.ndarray:
    """Replaces every id as the map says.

    Args:
        label: integer ids that are not negative.
        id_map: from old ids to new ones.
        path: of the file, for the error.

    Returns:
        int64 array of the same shape.

    Raises:
        ValueError: an id is not in the map.
    """
    table = np.full(max(id_map) + 2, -1)
    table[list(id_map)] = list(id_map.values())
    mapped = table[
        np.minimum(label.astype(np.int64), len(table) - 1)
    ]  # the last place is that of all larger ids
    if (mapped < 0).any():
        unknown = np.unique(label[mapped < 0]).tolist()
        raise ValueError(f"The label file '{path}' holds the ids {unknown[:10]}, which the id map lacks.")
    return mapped
