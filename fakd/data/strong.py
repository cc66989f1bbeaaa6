"""Strong changes of what the student alone is shown, as training with unlabelled images has them.

The teacher is shown the view without them. None moves a pixel, so that labels and the teacher's maps fit
both.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T

from .photometric import PhotometricDistortion


class RandomGrey(T.Augmentation):
    """A fifth of the images without their colours."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        return T.ColorTransform(_grey) if np.random.rand() < 0.2 else T.NoOpTransform()


class RandomBlur(T.Augmentation):
    """Half of the images under a Gaussian of 0.1 to 2 pixels."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        if np.random.rand() >= 0.5:
            return T.NoOpTransform()
        sigma = float(self._rand_range(0.1, 2.0))
        return T.ColorTransform(lambda image: cv2.GaussianBlur(image, (0, 0), sigma).reshape(image.shape))


class RandomCutout(T.Augmentation):
    """A rectangle of 2 to 40 % of half of the images gets one colour (DeVries and Taylor 2017).

    Its sides are in a ratio of 0.3 to 1 / 0.3, as CutMix has them in UniMatch (Yang et al. 2023). Its labels
    stay: the student is asked for what is hidden, as in masked image consistency (Hoyer et al. 2023).

    Args:
        values: of the rectangle, per channel.
    """

    def __init__(self, values: Sequence[float]) -> None:
        super().__init__()
        self.values = np.array(values)

    def get_transform(self, image: np.ndarray) -> T.Transform:
        if np.random.rand() >= 0.5:
            return T.NoOpTransform()
        height, width = image.shape[:2]
        area = self._rand_range(0.02, 0.4) * height * width
        ratio = math.exp(self._rand_range(math.log(0.3), -math.log(0.3)))
        rows = min(height, max(1, round(math.sqrt(area * ratio))))
        columns = min(width, max(1, round(area / rows)))
        top, left = np.random.randint(height - rows + 1), np.random.randint(width - columns + 1)

        def cut(image: np.ndarray) -> np.ndarray:
            changed = image.copy()
            filling = np.rint(self.values) if image.dtype == np.uint8 else self.values
            changed[top : top + rows, left : left + columns] = filling
            return changed

        return T.ColorTransform(cut)


def _grey(image: np.ndarray) -> np.ndarray:
    """Rounded to bytes: the mean of the channels, whose order so does not matter."""
    return np.repeat(image.mean(2, keepdims=True).round().astype(image.dtype), image.shape[2], 2)


def strong_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """Those that INPUT.STRONG names, in the order colour, blur, cutout."""
    made: dict[str, list[T.Augmentation]] = {
        "colour": [PhotometricDistortion(cfg.INPUT.FORMAT), RandomGrey()],
        "blur": [RandomBlur()],
        "cutout": [RandomCutout(cfg.MODEL.PIXEL_MEAN)],
    }
    return [each for name, parts in made.items() if name in cfg.INPUT.STRONG for each in parts]
