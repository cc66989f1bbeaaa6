"""One picture of images, truth and what several networks make of them."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from fakd.checkpoint import atomic_write
from fakd.functional.confusion import confusion_matrix, metrics_from_confusion

VOID_COLOUR = (0.0, 0.0, 0.0)


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
    path: str | Path,
    images: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    predictions: Mapping[str, Sequence[np.ndarray]],
    *,
    classes: Sequence[str],
    colours: Sequence[Sequence[int]],
    ignore_value: int,
    count: int = 5,
    compare: Sequence[str] | None = None,
) -> list[int]:
    """Writes a PNG with a row per image: image, truth, then every run with its mIoU on that image.

    The images shown are those on which the mIoU of the runs differs most. That makes differences visible, and
    is not what a typical image looks like; the picture says so.

    Args:
        path: of the PNG.
        images: (H, W, 3) uint8 RGB.
        truths: (H, W) class ids or ``ignore_value``.
        predictions: by run, in the order of the columns, (H, W) class ids of every image.
        classes: names of the K classes.
        colours: (K, 3) their RGB colours, 0 to 255; void is black.
        ignore_value: void label in ``truths``.
        count: rows at most.
        compare: runs whose difference chooses the images; default all.

    Returns:
        Indices of the images shown.

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
    palette = np.full((max(ignore_value, len(classes)) + 1, 3), VOID_COLOUR)
    palette[: len(classes)] = np.asarray(colours) / 255
    rows = [
        [(images[i], ""), (palette[truths[i]], "")]
        + [(palette[arrays[i]], f"mIoU {scores[name][i]:.1f}") for name, arrays in predictions.items()]
        for i in chosen
    ]
    note = (
        f"The {len(chosen)} of {len(images)} images on which the runs' mIoU differs most: not typical ones."
    )
    _write(path, _figure(rows, ["image", "truth", *predictions], classes, palette, note))
    return chosen


def _write(path: str | Path, figure: Figure) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, facecolor="white")
    with atomic_write(path) as file:
        file.write(buffer.getvalue())


def _figure(
    rows: list[list[tuple[np.ndarray, str]]],
    titles: list[str],
    classes: Sequence[str],
    palette: np.ndarray,
    note: str,
) -> Figure:
    """A grid of pictures with captions under titles; above it the classes, below it a note."""
    height, width = rows[0][0][0].shape[:2]
    inches = 2.0  # width of a tile
    size = (inches * len(titles), (inches * height / width + 0.22) * len(rows) + 1.1)
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure = Figure(figsize=size, layout=layout)
    for axes_row, tiles in zip(figure.subplots(len(rows), len(titles), squeeze=False), rows, strict=True):
        for axes, title, (picture, caption) in zip(axes_row, titles, tiles, strict=True):
            axes.imshow(picture, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.set_xlabel(caption, fontsize=8, labelpad=2)
            if tiles is rows[0]:
                axes.set_title(title, fontsize=10, fontweight="bold")
    patches = [Patch(color=tuple(palette[i]), label=name) for i, name in enumerate(classes)]
    patches.append(Patch(color=VOID_COLOUR, label="void"))
    figure.legend(handles=patches, loc="outside upper center", ncols=7, fontsize=8, frameon=False)
    figure.supxlabel(note, fontsize=8)
    return figure
