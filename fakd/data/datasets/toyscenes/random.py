"""Random numbers and noise for toyscenes, the same to the last bit on every machine.

All randomness is ``RandomState.random_sample``, whose stream NumPy has frozen; all arithmetic is float64 with
+ - * / and comparisons, elementwise, which IEEE 754 makes exact.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Colour = np.ndarray  # (3,) or (h, w, 3) float64, 0..255


class Dice:
    """Random choices from one seed.

    Args:
        seed: in [0, 2**32).
    """

    def __init__(self, seed: int) -> None:
        self._stream = np.random.RandomState(seed)

    def real(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        return low + (high - low) * float(self._stream.random_sample())

    def grid(self, height: int, width: int) -> np.ndarray:
        """(height, width) numbers in [0, 1)."""
        return self._stream.random_sample((height, width))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.real() < probability

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, all alike."""
        return options[int(self.real() * len(options))]

    def sign(self) -> float:
        """1 or -1."""
        return self.pick((-1.0, 1.0))

    def colour(self, palette: Sequence[tuple[int, int, int]], spread: float = 14.0) -> Colour:
        """A colour of the palette, with its brightness and each channel changed a little."""
        base = np.array(self.pick(palette), dtype=np.float64)
        change = np.array([self.real(-spread, spread) for _ in range(3)])
        return (base + change) * self.real(0.8, 1.15)

    def rotation(self, steepest: float = 1.0) -> tuple[float, float]:
        """(cosine, sine) of an angle of at most ``steepest`` right angles either way, about evenly."""
        t = self.real(-steepest, steepest)
        return (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)


def smooth_noise(dice: Dice, height: int, width: int, cell: float) -> np.ndarray:
    """(height, width) noise in [0, 1): random numbers ``cell`` pixels apart, joined bilinearly."""
    y, x = np.arange(height) / cell, np.arange(width) / cell
    y0, x0 = np.floor(y).astype(int), np.floor(x).astype(int)
    fy, fx = (y - y0)[:, None], (x - x0)[None, :]
    knots = dice.grid(int(y0[-1]) + 2, int(x0[-1]) + 2)
    top, bottom = knots[y0], knots[y0 + 1]
    upper = top[:, x0] * (1 - fx) + top[:, x0 + 1] * fx
    lower = bottom[:, x0] * (1 - fx) + bottom[:, x0 + 1] * fx
    return upper * (1 - fy) + lower * fy
