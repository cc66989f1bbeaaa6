"""Augmentations: random scale and crop in one step, flip, colour; outside training the test scale."""

from collections.abc import Callable, Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from PIL import Image

from .photometric import PhotometricDistortion

#: How often a crop that one class fills is drawn anew.
_REDRAWS = 10
_MOST_FACTORS = 10**6  # of a range with a step


class RandomScale(T.Augmentation):
    """Resizes by a random factor, keeping the aspect ratio.

    Args:
        low: smallest factor.
        high: largest factor; factors are drawn uniformly from [low, high].
        base_size: (long side, short side) of the box that factor 1 fits the image into;
            (0, 0) means the image's own size.
        step: draw from low, low + step, ... up to high, which is left out if no step meets it; 0 draws any
            factor between.

    Raises:
        ValueError: the range is empty or not positive, or the step is negative or too small for it.
    """

    def __init__(
        self, low: float, high: float, base_size: tuple[int, int] = (0, 0), step: float = 0.0
    ) -> None:
        if not 0 < low <= high:
            raise ValueError(f"INPUT.SCALE_RANGE needs 0 < low <= high, got ({low}, {high}).")
        if step < 0:
            raise ValueError(f"INPUT.SCALE_STEP must not be negative, got {step}.")
        if step and (high - low) / step >= _MOST_FACTORS:
            raise ValueError(
                f"INPUT.SCALE_STEP is {step}, which gives more than {_MOST_FACTORS} factors in "
                f"INPUT.SCALE_RANGE, ({low}, {high}). Take a larger step, or 0 for any factor between."
            )
        super().__init__()
        self.low, self.high, self.base_size, self.step = low, high, base_size, step

    def get_transform(self, image: np.ndarray) -> T.Transform:
        height, width = image.shape[:2]
        factor = self._factor()
        if any(self.base_size):
            long_side, short_side = max(self.base_size), min(self.base_size)
            factor *= min(long_side / max(height, width), short_side / min(height, width))
        new_height, new_width = (max(1, int(side * factor + 0.5)) for side in (height, width))
        return _Resize(height, width, new_height, new_width)

    def _factor(self) -> float:
        if self.low == self.high:  # draws nothing: testing leaves the random state of the process alone
            return self.low
        if self.step:
            steps = int((self.high - self.low) / self.step + 1e-6)  # whole but for the floats' error
            return self.low + self.step * np.random.randint(steps + 1)
        return self._rand_range(self.low, self.high)


class _Resize(T.ResizeTransform):
    """detectron2's, which shrinks floats by their nearest neighbours; here they are filtered as bytes."""

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        if img.dtype != np.float32 or img.ndim != 3:
            return super().apply_image(img, interp)
        how = self.interp if interp is None else interp
        return by_channel(img, lambda picture: picture.resize((self.new_w, self.new_h), how))


def by_channel(image: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """(H', W', C) float32, each channel of an (H, W, C) image changed as a picture of its own."""
    channels = [change(Image.fromarray(np.ascontiguousarray(band))) for band in np.moveaxis(image, 2, 0)]
    return np.stack([np.asarray(channel) for channel in channels], 2)


class ScaledCropTransform(T.Transform):
    """Resizes an image and cuts a window out of the result, at the cost of the window alone.

    Args:
        size: (H, W) the transform was made for. An image may come at any other resolution, decoded at half
            its size, say: the window is taken in proportion.
        scaled: (H', W') after the resize.
        top: first row of the window in the resized image.
        left: its first column.
        window: (h, w) of the window, which must lie inside.
    """

    def __init__(
        self, size: tuple[int, int], scaled: tuple[int, int], top: int, left: int, window: tuple[int, int]
    ) -> None:
        super().__init__()
        self._set_attributes(locals())

    @property
    def factor(self) -> float:
        """By how much the image is enlarged."""
        return max(new / old for new, old in zip(self.scaled, self.size, strict=True))

    def cut(self, picture: Image.Image, interp: int = Image.Resampling.BILINEAR) -> Image.Image:
        """The window of a picture, without a copy of the rest."""
        (height, width), (rows, columns) = self.window, self.scaled
        x, y = picture.width / columns, picture.height / rows
        box = (self.left * x, self.top * y, (self.left + width) * x, (self.top + height) * y)
        return picture.resize((width, height), interp, box)

    def apply_image(self, img: np.ndarray, interp: int = Image.Resampling.BILINEAR) -> np.ndarray:
        if img.dtype == np.float32 and img.ndim == 3:
            return by_channel(img, lambda picture: self.cut(picture, interp))
        return np.asarray(self.cut(Image.fromarray(img), interp))

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return self.apply_image(segmentation, Image.Resampling.NEAREST)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        y, x = (new / old for new, old in zip(self.scaled, self.size, strict=True))
        return coords * [x, y] - [self.left, self.top]


class Pad(T.Augmentation):
    """Pads an image to a size, on the right and below; a larger image stays as it is.

    Args:
        size: (height, width).
        value: of the filling.
        ignore_value: of the label's filling.
        values: of the filling per channel, of images of float32.
    """

    def __init__(
        self, size: tuple[int, int], value: int, ignore_value: int, values: Sequence[float] = ()
    ) -> None:
        super().__init__()
        self.size, self.value, self.ignore_value, self.values = size, value, ignore_value, values

    def get_transform(self, image: np.ndarray) -> T.Transform:
        height, width = image.shape[:2]
        below, right = (max(wanted - had, 0) for wanted, had in zip(self.size, (height, width), strict=True))
        if not below and not right:
            return T.NoOpTransform()
        borders = (0, 0, right, below, width, height)
        if image.dtype == np.float32 and len(self.values):
            return _PadChannels(*borders, np.array(self.values, np.float32), self.ignore_value)
        return T.PadTransform(*borders, self.value, self.ignore_value)


class _PadChannels(T.PadTransform):
    """Its value is one for each channel."""

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        bottom, right = img.shape[0] + self.y1, img.shape[1] + self.x1
        padded = np.broadcast_to(self.pad_value, (bottom, right, img.shape[2])).copy()
        padded[: img.shape[0], : img.shape[1]] = img
        return padded


class RandomScaledCrop(T.Augmentation):
    """A random scale and a crop placed at random in the result; what is smaller than the crop stays smaller.

    Args:
        scale: draws the size.
        crop_size: (height, width).
        max_share: a crop is drawn anew, a few times, if one class has at least this share of its labelled
            pixels; 1 takes every crop.
        ignore_value: label of void.
    """

    def __init__(
        self, scale: RandomScale, crop_size: tuple[int, int], max_share: float = 1.0, ignore_value: int = 255
    ) -> None:
        super().__init__()
        self.scale, self.crop_size = scale, crop_size
        self.max_share, self.ignore_value = max_share, ignore_value

    def __call__(self, aug_input: T.AugInput) -> T.Transform:
        transform = self.get_transform(aug_input.image, getattr(aug_input, "sem_seg", None))
        aug_input.transform(transform)
        return transform

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray | None = None) -> ScaledCropTransform:
        """Only the shape of ``image`` matters, so its label may stand for it."""
        resize = self.scale.get_transform(image)
        transform = self._place(resize)
        if self.max_share >= 1 or sem_seg is None:
            return transform
        for _ in range(_REDRAWS):
            if self._is_varied(transform.apply_segmentation(sem_seg)):
                break
            transform = self._place(resize)
        return transform

    def _place(self, resize: T.ResizeTransform) -> ScaledCropTransform:
        scaled = (resize.new_h, resize.new_w)
        window = tuple(min(sides) for sides in zip(self.crop_size, scaled, strict=True))
        top, left = (np.random.randint(s - w + 1) for s, w in zip(scaled, window, strict=True))
        return ScaledCropTransform((resize.h, resize.w), scaled, top, left, window)

    def _is_varied(self, label: np.ndarray) -> bool:
        counts = np.bincount(label.ravel(), minlength=self.ignore_value + 1)
        counts[self.ignore_value] = 0
        return bool(np.count_nonzero(counts) > 1 and counts.max() < self.max_share * counts.sum())


def build_augmentations(cfg: CfgNode, is_train: bool) -> list[T.Augmentation]:
    """The augmentations of a config, in training a :class:`RandomScaledCrop` first.

    Outside training only the resizing to INPUT.BASE_SIZE, if it is set.

    Raises:
        ValueError: INPUT.RANDOM_FLIP or INPUT.SCALE_RANGE is none that exists.
    """
    base_size = tuple(cfg.INPUT.BASE_SIZE)
    if not is_train:
        return [RandomScale(1.0, 1.0, base_size)] if any(base_size) else []
    crop_size, ignore_value = tuple(cfg.INPUT.CROP.SIZE), cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    low, high = cfg.INPUT.SCALE_RANGE
    scale = RandomScale(low, high, base_size, cfg.INPUT.SCALE_STEP)
    augmentations = [RandomScaledCrop(scale, crop_size, cfg.INPUT.CROP.MAX_SHARE, ignore_value)]
    if cfg.INPUT.RANDOM_FLIP == "horizontal":
        augmentations.append(T.RandomFlip())
    elif cfg.INPUT.RANDOM_FLIP != "none":
        raise ValueError(f"INPUT.RANDOM_FLIP must be 'horizontal' or 'none', got '{cfg.INPUT.RANDOM_FLIP}'.")
    if cfg.INPUT.PHOTOMETRIC:
        augmentations.append(PhotometricDistortion(cfg.INPUT.FORMAT))
    # Last, so that the colour augmentation leaves the padding as it is.
    mean = round(sum(cfg.MODEL.PIXEL_MEAN) / len(cfg.MODEL.PIXEL_MEAN))
    augmentations.append(Pad(crop_size, mean, ignore_value, cfg.MODEL.PIXEL_MEAN))
    return augmentations
