"""One picture of images, truth and what several networks make of them."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from fakd.functional.confusion import confusion_matrix, metrics_from_confusion

from .tiles import Tile, draw_tiles

_VOID = (0, 0, 0)
_RIGHT, _BOTH, _FIXED, _BROKEN = (238, 238, 238), (150, 150, 150), (0, 114, 178), (213, 94, 0)


def image_miou(prediction: np.ndarray, truth: np.ndarray, num_classes: int, ignore_value: int) -> float:
    """mIoU of one image in percent, over the classes in its truth; nan when all is void.

    Args:
        prediction: (H, W) class ids.
        truth: (H, W) class ids or ``ignore_value``.
    """
    matrix = confusion_matrix(torch.as_tensor(prediction), torch.as_tensor(truth), num_classes, ignore_value)
    return 100 * metrics_from_confusion(matrix)["mIoU"].item()


def most_different(scores: np.ndarray, count: int) -> list[int]:
    """The ``count`` images, widest first, on which the scores (runs, images) spread furthest between runs."""
    spread = np.nan_to_num(scores.max(axis=0) - scores.min(axis=0), nan=-1.0)
    return np.argsort(-spread, kind="stable")[:count].tolist()


def draw_panels(
    images: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    predictions: Mapping[str, Sequence[np.ndarray]],
    *,
    classes: Sequence[str],
    palette: np.ndarray,
    ignore_value: int,
    count: int = 5,
    compare: Sequence[str] | None = None,
    baseline: str = "",
) -> tuple[bytes, list[int]]:
    """A PNG with a row per image: image, truth, then every run with its mIoU on that image.

    The images shown are those on which the mIoU of the runs differs most. That makes differences visible, and
    is not what a typical image looks like; the picture says so.

    Args:
        images: (H, W, 3) uint8 RGB.
        truths: (H, W) class ids or ``ignore_value``.
        predictions: by run, in the order of the columns, (H, W) class ids of every image.
        classes: names of the K classes.
        palette: (V, 3) uint8 RGB by id, see :func:`fakd.data.datasets.colours.palette`.
        ignore_value: void label in ``truths``.
        count: rows at most.
        compare: runs whose difference chooses the images; default all.
        baseline: one of the runs; below every prediction comes a map of its errors and of those of this run.

    Returns:
        The content of the PNG, and the indices of the images shown.

    Raises:
        ValueError: a run has not one prediction per image; names the run.
    """
    for name, arrays in predictions.items():
        if not len(arrays) == len(truths) == len(images):
            raise ValueError(
                f"{name} has {len(arrays)} predictions for {len(images)} images with {len(truths)} truths; "
                "give one of each per image"
            )
    scores = {
        name: [image_miou(p, t, len(classes), ignore_value) for p, t in zip(arrays, truths, strict=True)]
        for name, arrays in predictions.items()
    }
    chosen = most_different(np.array([scores[name] for name in compare or predictions]), count)
    rows: list[list[Tile]] = []
    for i in chosen:
        tiles = [Tile(palette[p[i]], f"mIoU {scores[name][i]:.1f}") for name, p in predictions.items()]
        rows.append([Tile(images[i]), Tile(palette[truths[i]]), *tiles])
        if baseline:
            other = predictions[baseline][i]
            maps = [Tile(error_map(p[i], other, truths[i], ignore_value)) for p in predictions.values()]
            rows.append([Tile(), Tile(), *maps])
    seen = np.unique(
        [c for all_of in (truths, *predictions.values()) for i in chosen for c in np.unique(all_of[i])]
    )
    legend = {classes[c]: palette[c] for c in seen if c < len(classes)} | _legend(baseline)
    note = (
        f"The {len(chosen)} of {len(images)} images on which the runs' mIoU differs most: not typical ones."
    )
    return draw_tiles(rows, ["image", "truth", *predictions], note, legend), chosen


def _legend(baseline: str) -> dict[str, tuple[int, int, int]]:
    """Colours that are no classes'."""
    if not baseline:
        return {"void": _VOID}
    return {
        "void": _VOID,
        "right": _RIGHT,
        f"wrong here and in {baseline}": _BOTH,
        f"wrong in {baseline}, right here": _FIXED,
        f"right in {baseline}, wrong here": _BROKEN,
    }


def error_map(prediction: np.ndarray, other: np.ndarray, truth: np.ndarray, ignore_value: int) -> np.ndarray:
    """(H, W, 3) uint8: where a prediction is right, and where it is wrong alone or together with another."""
    colours = np.array([_RIGHT, _FIXED, _BROKEN, _BOTH, _VOID], np.uint8)
    kind = 2 * (prediction != truth) + (other != truth)
    return colours[np.where(truth == ignore_value, 4, kind)]
