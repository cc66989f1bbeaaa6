"""Colours of classes, also for those that bring none."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
from detectron2.data import Metadata


def palette(metadata: Metadata) -> np.ndarray:
    """(V, 3) uint8 RGB by class id, the void label included, which is black.

    Args:
        metadata: of a registered dataset, with ``stuff_classes`` and ``ignore_label``.
    """
    number = len(metadata.stuff_classes)
    colours = np.zeros((max(number, metadata.ignore_label + 1), 3), np.uint8)
    colours[:number] = metadata.get("stuff_colors") or colour_map(number)
    return colours


def colour_map(number: int) -> list[tuple[int, int, int]]:
    """The first colours of Pascal VOC's map, up to 256 and all different.

    Bits 0, 1 and 2 of the class id become the highest bit of red, green and blue, bits 3 to 5 the next, and
    so on, so that neighbouring ids look different.
    """
    colours = []
    for index in range(number):
        channels = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
        colours.append((channels[0], channels[1], channels[2]))
    return colours


def as_hex(colours: Iterable[Sequence[int]]) -> tuple[str, ...]:
    """RGB colours of 0 to 255 as ``#rrggbb``."""
    return tuple("#{:02x}{:02x}{:02x}".format(*colour) for colour in colours)


def of_hex(colours: Iterable[str]) -> list[tuple[int, int, int]]:
    """RGB colours of 0 to 255 that :func:`as_hex` wrote.

    Raises:
        ValueError: one is no ``#rrggbb``.
    """
    found = []
    for text in colours:
        if not re.fullmatch("#[0-9a-fA-F]{6}", text):
            raise ValueError(f"{text!r} is no colour: it must be # and six hexadecimal digits.")
        red, green, blue = bytes.fromhex(text[1:])
        found.append((red, green, blue))
    return found
