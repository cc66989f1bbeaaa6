"""A picture with its classes laid over it, and a legend below."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# More names would be unreadable; the most frequent classes of the picture are shown.
_MOST = 40
_LEAST_WIDTH = 320  # of a legend that can be read
_SIZES = (11, 20)  # of its letters, in small and large pictures


def overlay(
    image: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    colours: np.ndarray,
    opacity: float = 0.5,
) -> np.ndarray:
    """Lays the colours of the classes over a picture and adds the legend.

    All pictures of one size give results of one size, as the frames of a video must. Small pictures are
    enlarged to the width that the legend needs.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) class ids.
        classes: names of the K classes.
        colours: (K, 3) uint8 RGB.
        opacity: of the colours, 0 to 1.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    mixed = np.rint((1 - opacity) * image + opacity * colours[labels]).astype(np.uint8)
    factor = -(-_LEAST_WIDTH // image.shape[1])
    if factor > 1:
        mixed = mixed.repeat(factor, axis=0).repeat(factor, axis=1)
    shown: Sequence[int] = range(len(classes))
    if len(classes) > _MOST:
        counts = np.bincount(labels.ravel(), minlength=len(classes))
        shown = sorted(np.argsort(-counts, kind="stable")[:_MOST].tolist())
    entries = tuple((classes[i], tuple(map(int, colours[i]))) for i in shown)
    return np.concatenate([mixed, _legend(entries, mixed.shape[1])])


@lru_cache(maxsize=64)
def _legend(entries: tuple[tuple[str, tuple[int, ...]], ...], width: int) -> np.ndarray:
    """Names beside their colours, in columns, (h, width, 3) uint8."""
    size = int(np.clip(width // 50, *_SIZES))
    font = ImageFont.load_default(size)
    row, margin = size + size // 2, size // 2
    widest = max(font.getlength(name) for name, _ in entries)
    columns = max(1, int((width - margin) // (widest + size + 3 * margin)))
    rows = -(-len(entries) // columns)
    picture = Image.new("RGB", (width, rows * row + 2 * margin), "white")
    draw = ImageDraw.Draw(picture)
    for i, (name, colour) in enumerate(entries):
        x, y = margin + (width - margin) // columns * (i // rows), margin + row * (i % rows)
        draw.rectangle((x, y, x + size, y + size), fill=colour, outline="black")
        draw.text((x + size + margin, y + size / 2), name, fill="black", font=font, anchor="lm")
    return np.asarray(picture)
