"""Random changes of colour, as mmsegmentation trains with."""

import cv2
import numpy as np
from detectron2.data import transforms as T

_BYTES = np.arange(256, dtype=np.float64)
_HUES = 180  # OpenCV's degrees of hue, two real ones each


class PhotometricDistortion(T.Augmentation):
    """Brightness, contrast, saturation and hue, each changed in half of the images.

    Brightness by up to 32; contrast by 0.5 to 1.5, before or after the colours; saturation by 0.5 to 1.5; hue
    by up to 18 of OpenCV's 180 degrees. The label stays as it is.

    Args:
        image_format: "RGB" or "BGR".
    """

    def __init__(self, image_format: str = "RGB") -> None:
        super().__init__()
        self.to_hsv, self.from_hsv = (
            (cv2.COLOR_RGB2HSV, cv2.COLOR_HSV2RGB)
            if image_format == "RGB"
            else (cv2.COLOR_BGR2HSV, cv2.COLOR_HSV2BGR)
        )

    def get_transform(self, image: np.ndarray) -> T.Transform:
        if image.dtype != np.uint8:
            raise ValueError(
                "INPUT.PHOTOMETRIC, and 'colour' of INPUT.STRONG, change images of 8 bits in three channels "
                "alone: turn them off."
            )
        brightness = self._rand_range(-32, 32) if _coin() else 0.0
        contrast_first = _coin()
        contrast, saturation = (self._rand_range(0.5, 1.5) if _coin() else 1.0 for _ in range(2))
        hue = np.random.randint(-18, 18) if _coin() else 0

        def distort(image: np.ndarray) -> np.ndarray:
            before = _to_bytes(_BYTES + brightness)
            if contrast_first:
                before = _to_bytes(before * contrast)
            image = cv2.LUT(image, before)
            if saturation != 1.0 or hue:
                hsv = cv2.cvtColor(image, self.to_hsv)
                tables = np.stack([(_BYTES + hue) % _HUES, _BYTES * saturation, _BYTES], 1)
                image = cv2.cvtColor(cv2.LUT(hsv, _to_bytes(tables)[:, None]), self.from_hsv)
            return image if contrast_first else cv2.LUT(image, _to_bytes(_BYTES * contrast))

        return T.ColorTransform(distort)


def _coin() -> bool:
    return bool(np.random.randint(2))


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return values.clip(0, 255).astype(np.uint8)
