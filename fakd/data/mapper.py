"""From a dataset dict to what the model is fed."""

import copy

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog, detection_utils
from detectron2.data import transforms as T

from .augmentations import build_augmentations
from .labels import read_label


class SemSegMapper:
    """Reads image and label, checks them, augments both alike.

    Called with a dataset dict, returns a copy of it with ``image``, (C, H, W) uint8 in the configured
    channel order, and in training ``sem_seg``, (H, W) int64 with ``ignore_value`` for void. Outside training
    the label is not read: the evaluator reads it at full size.

    Random numbers come from NumPy's global generator, as in all detectron2 augmentations.
    """

    @configurable
    def __init__(
        self,
        *,
        augmentations: list[T.Augmentation],
        image_format: str,
        num_classes: int,
        ignore_label: int,
        ignore_value: int,
        is_train: bool,
    ):
        """
        Args:
            augmentations: applied in order, to the image and its label.
            image_format: "RGB" or "BGR".
            num_classes: ids of classes are in [0, num_classes).
            ignore_label: id of void in the label files.
            ignore_value: id of void in ``sem_seg``.
            is_train: whether to augment and to read the label.
        """
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.ignore_value = ignore_value
        self.is_train = is_train

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict:
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "augmentations": build_augmentations(cfg, is_train),
            "image_format": cfg.INPUT.FORMAT,
            "num_classes": head.NUM_CLASSES,
            "ignore_label": common_ignore_label(cfg.DATASETS.TRAIN, head.NUM_CLASSES) if is_train else 255,
            "ignore_value": head.IGNORE_VALUE,
            "is_train": is_train,
        }

    def __call__(self, dataset_dict: dict) -> dict:
        """
        Raises:
            ValueError: a file cannot be read, image and label differ in size, or a label holds an unknown
                id; the message names the file.
        """
        sample = copy.copy(dataset_dict)
        image = self._read_image(sample["file_name"])
        if self.is_train:
            label = self._read_checked_label(sample, image.shape[:2])
            # detectron2 resizes bytes with Pillow, as it does the image, and floats with torch; integers not.
            fits_byte = max(self.num_classes - 1, self.ignore_value) < 256
            aug_input = T.AugInput(image, sem_seg=label.astype(np.uint8 if fits_byte else np.float32))
            self.augmentations(aug_input)
            image = aug_input.image
            sample["sem_seg"] = torch.from_numpy(aug_input.sem_seg.astype(np.int64))
        else:
            # The prediction is asked for at the file's own size, whatever the network is shown.
            sample["height"], sample["width"] = image.shape[:2]
            aug_input = T.AugInput(image)
            self.augmentations(aug_input)
            image = aug_input.image
        sample["image"] = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return sample

    def _read_image(self, path: str) -> np.ndarray:
        try:
            return detection_utils.read_image(path, self.image_format)
        except OSError as error:  # Pillow's "truncated" errors do not name the file
            raise ValueError(f"Cannot read the image '{path}': {error}") from error

    def _read_checked_label(self, sample: dict, size: tuple[int, int]) -> np.ndarray:
        path = sample["sem_seg_file_name"]
        label = read_label(path, self.ignore_label, self.ignore_value)
        if label.shape != size:
            raise ValueError(
                f"The image '{sample['file_name']}' is {size[1]}x{size[0]} pixels (width x height), "
                f"its label '{path}' {label.shape[1]}x{label.shape[0]}. Both must have the same size."
            )
        unknown = ((label < 0) | (label >= self.num_classes)) & (label != self.ignore_value)
        if unknown.any():
            raise ValueError(
                f"The label file '{path}' holds the ids {np.unique(label[unknown]).tolist()[:10]}, but ids "
                f"must lie in [0, {self.num_classes}) or be the dataset's void id {self.ignore_label}. "
                "Check MODEL.SEM_SEG_HEAD.NUM_CLASSES and the ignore_label of the dataset's metadata."
            )
        return label


def common_ignore_label(names: tuple[str, ...], num_classes: int) -> int:
    """The void id that the named datasets share.

    Raises:
        ValueError: a dataset's class names do not number ``num_classes``, or the void ids differ.
    """
    ignore_labels = {}
    for name in names:
        metadata = MetadataCatalog.get(name)
        classes = metadata.get("stuff_classes")
        if classes is not None and len(classes) != num_classes:
            raise ValueError(
                f"The dataset '{name}' has {len(classes)} classes, but MODEL.SEM_SEG_HEAD.NUM_CLASSES is "
                f"{num_classes}."
            )
        ignore_labels[name] = metadata.get("ignore_label", 255)
    if len(set(ignore_labels.values())) > 1:
        raise ValueError(f"DATASETS.TRAIN mixes datasets with different void ids: {ignore_labels}.")
    return ignore_labels[names[0]]
