"""Augmentations: random scale, crop to a fixed size, flip; outside training the test scale."""

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T


class RandomScale(T.Augmentation):
    """Resizes by a random factor, keeping the aspect ratio.

    Args:
        low: smallest factor.
        high: largest factor; factors are drawn uniformly from [low, high].
        base_size: (long side, short side) of the box that factor 1 fits the image into;
            (0, 0) means the image's own size.

    Raises:
        ValueError: the range is empty or not positive.
    """

    def __init__(self, low: float, high: float, base_size: tuple[int, int] = (0, 0)):
        if not 0 < low <= high:
            raise ValueError(f"INPUT.SCALE_RANGE needs 0 < low <= high, got ({low}, {high}).")
        super().__init__()
        self.low, self.high, self.base_size = low, high, base_size

    def get_transform(self, image: np.ndarray) -> T.Transform:
        height, width = image.shape[:2]
        # A fixed scale draws nothing, so testing leaves the random state of the process alone.
        factor = self.low if self.low == self.high else self._rand_range(self.low, self.high)
        if any(self.base_size):
            long_side, short_side = max(self.base_size), min(self.base_size)
            factor *= min(long_side / max(height, width), short_side / min(height, width))
        new_height, new_width = (max(1, int(side * factor + 0.5)) for side in (height, width))
        return T.ResizeTransform(height, width, new_height, new_width)


def build_augmentations(cfg: CfgNode, is_train: bool) -> list[T.Augmentation]:
    """The augmentations of a config; outside training only the resizing to INPUT.BASE_SIZE, if it is set."""
    base_size = tuple(cfg.INPUT.BASE_SIZE)
    if not is_train:
        return [RandomScale(1.0, 1.0, base_size)] if any(base_size) else []
    crop_size = tuple(cfg.INPUT.CROP.SIZE)
    low, high = cfg.INPUT.SCALE_RANGE
    augmentations = [
        RandomScale(low, high, base_size),
        # FixedSizeCrop alone draws one number for both offsets, so its crops lie on the diagonal of the
        # image: RandomCrop places the crop, FixedSizeCrop only pads what is smaller.
        T.RandomCrop("absolute", crop_size),
        T.FixedSizeCrop(
            crop_size,
            pad_value=round(sum(cfg.MODEL.PIXEL_MEAN) / len(cfg.MODEL.PIXEL_MEAN)),
            seg_pad_value=cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
        ),
    ]
    if cfg.INPUT.RANDOM_FLIP == "horizontal":
        augmentations.append(T.RandomFlip())
    elif cfg.INPUT.RANDOM_FLIP != "none":
        raise ValueError(f"INPUT.RANDOM_FLIP must be 'horizontal' or 'none', got '{cfg.INPUT.RANDOM_FLIP}'.")
    return augmentations
