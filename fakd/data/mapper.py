"""Converts a dataset dict to the input of a model."""

import copy
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T
from PIL import Image

from .augmentations import RandomScaledCrop, ScaledCropTransform, build_augmentations
from .bands import is_array, read_array
from .datasets.classes import check_order
from .decoded import DecodedFiles
from .images import as_array, decode, open_image, read_image, shown_size, size_error
from .labels import read_ids, read_label
from .strong import strong_augmentations


class SemSegMapper:
    """Reads image and label, checks them, augments both alike.

    Called with a dataset dict, returns a copy of it with ``image``, (C, H, W) uint8 in the configured
    channel order (float32 where it is an array of measured values, :func:`fakd.data.bands.is_array`), and
    in training ``sem_seg``, (H, W) int64 with ``ignore_value`` for void. Outside training the label is
    not read: the evaluator reads it at full size. In training a dict without ``sem_seg_file_name`` is an
    image without a label: all of its ``sem_seg`` is void, and ``unlabelled``, (H, W) bool, is False where
    it was padded. With strong augmentations, ``image`` is what they make of ``teacher_image``, which has the
    same frame and padding.

    Random numbers come from NumPy's global generator, as in all detectron2 augmentations.
    """

    @configurable
    def __init__(
        self,
        *,
        augmentations: list[T.Augmentation],
        strong: Sequence[T.Augmentation] = (),
        crop: RandomScaledCrop | None,
        image_format: str,
        channels: int = 3,
        num_classes: int,
        ignore_label: int,
        ignore_value: int,
        id_map: Mapping[int, int] | None,
        is_train: bool,
        decoded: DecodedFiles | None = None,
    ) -> None:
        """
        Args:
            augmentations: applied in order, to the image and its label. They keep what is there in the upper
                left corner: the last may pad.
            strong: applied after them in training, to the image in front of the student alone.
            crop: applied before them in training, which needs one. It is drawn before the image is decoded,
                so that only what it needs is decoded and resized.
            image_format: "RGB" or "BGR".
            channels: C.
            num_classes: ids of classes are in [0, num_classes).
            ignore_label: id of void in the label files.
            ignore_value: id of void in ``sem_seg``.
            id_map: from ids in the label files to class ids, or None.
            is_train: whether to augment and to read the label.
            decoded: where pixels are read in place of the files, of images of three channels.
        """
        self.open_image = open_image if decoded is None else decoded.open_image
        self.read_ids = read_ids if decoded is None else decoded.read
        self.augmentations = T.AugmentationList(augmentations)
        self.strong = T.AugmentationList(strong) if strong else None
        self.crop = crop
        self.image_format, self.channels = image_format, channels
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.ignore_value = ignore_value
        self.id_map = id_map
        self.fits_byte = max(num_classes - 1, ignore_value) < 256
        if self.fits_byte:
            known = id_map or {i: i for i in range(num_classes)}
            classes = {i: c for i, c in {ignore_label: ignore_label, **known}.items() if i < 256}
            self.is_unknown, self.class_of = np.ones(256, np.uint8), np.zeros(256, np.uint8)
            self.is_unknown[list(classes)] = 0
            self.class_of[list(classes)] = [
                ignore_value if c == ignore_label else c for c in classes.values()
            ]
        self.is_train = is_train

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict:
        """The arguments, from a config."""
        head = cfg.MODEL.SEM_SEG_HEAD
        augmentations = build_augmentations(cfg, is_train)
        ignore_label, id_map = (
            common_label_ids(cfg.DATASETS.TRAIN, head.NUM_CLASSES) if is_train else (255, None)
        )
        return {
            "augmentations": augmentations[1:] if is_train else augmentations,
            "strong": strong_augmentations(cfg) if is_train else [],
            "crop": augmentations[0] if is_train else None,
            "image_format": cfg.INPUT.FORMAT,
            "channels": cfg.INPUT.CHANNELS,
            "num_classes": head.NUM_CLASSES,
            "ignore_label": ignore_label,
            "ignore_value": head.IGNORE_VALUE,
            "id_map": id_map,
            "is_train": is_train,
            "decoded": DecodedFiles(cfg.DATALOADER.DECODED) if is_train and cfg.DATALOADER.DECODED else None,
        }

    def __call__(self, dataset_dict: dict) -> dict:
        """
        Raises:
            ValueError: a file cannot be read, image and label differ in size, or a label holds an unknown
                id; the message names the file.
        """
        sample = copy.copy(dataset_dict)
        if self.is_train:
            aug_input = self._read_crop(sample)
        else:
            aug_input = T.AugInput(self._read(sample["file_name"]))
            # The prediction has the file's own size, whatever the network's input has.
            sample["height"], sample["width"] = aug_input.image.shape[:2]
        height, width = aug_input.image.shape[:2]
        self.augmentations(aug_input)
        if self.is_train:
            sample["sem_seg"] = torch.from_numpy(aug_input.sem_seg.astype(np.int64))
            if "sem_seg_file_name" not in sample:
                sample["unlabelled"] = sample["sem_seg"] != self.ignore_value
                sample["sem_seg"] = torch.full_like(sample["sem_seg"], self.ignore_value)
        image = aug_input.image
        if self.strong is not None:
            sample["teacher_image"] = _as_tensor(image)
            image = image.copy()
            inner = T.AugInput(image[:height, :width])  # without what was padded
            self.strong(inner)
            image[:height, :width] = inner.image
        sample["image"] = _as_tensor(image)
        return sample

    def _read(self, path: str) -> np.ndarray:
        if not is_array(path, self.channels):
            return read_image(path, self.image_format)
        image = read_array(path, self.channels)
        return image[..., ::-1] if self.image_format == "BGR" else image

    def _read_crop(self, sample: dict) -> T.AugInput:
        if is_array(sample["file_name"], self.channels):
            image = self._read(sample["file_name"])
            cut, label = self._draw(sample, image)
            window = cut.apply_image(image)
        else:
            with self.open_image(sample["file_name"]) as picture:
                cut, label = self._draw(sample, picture)
                window = as_array(cut.cut(decode(picture, cut.factor)), self.image_format)
        return T.AugInput(window, sem_seg=cut.apply_segmentation(label))

    def _draw(
        self, sample: dict, picture: Image.Image | np.ndarray
    ) -> tuple[ScaledCropTransform, np.ndarray]:
        """The crop, and the checked label; a label of zeros where there is none."""
        assert self.crop is not None  # in training
        if "sem_seg_file_name" in sample:
            label = self._read_checked_label(sample, picture)
            return self.crop.get_transform(label, label), label
        label = np.zeros(shown_size(picture)[::-1], np.uint8 if self.fits_byte else np.int32)
        return self.crop.get_transform(label), label

    def _read_checked_label(self, sample: dict, picture: Image.Image | np.ndarray) -> np.ndarray:
        """(H, W) class ids in one byte, or in four where one does not hold them all."""
        path, size = sample["sem_seg_file_name"], shown_size(picture)[::-1]
        ids = self.read_ids(path)
        if self.fits_byte and ids.dtype == np.uint8 and ids.shape == size:
            # Two passes over bytes suffice for most files; the slow way below finds what is wrong.
            if not cv2.LUT(ids, self.is_unknown).any():
                return cv2.LUT(ids, self.class_of)
        label = read_label(path, self.ignore_label, -1, self.id_map)
        if label.shape != size:
            raise ValueError(size_error(sample, picture, label))
        unknown = label[label >= self.num_classes]
        if unknown.size:
            raise ValueError(
                f"The label file '{path}' holds the ids {np.unique(unknown).tolist()[:10]}, but ids "
                f"must lie in [0, {self.num_classes}) or be the dataset's void id {self.ignore_label}. "
                "Check MODEL.SEM_SEG_HEAD.NUM_CLASSES and the dataset's ignore_label. If its files have ids "
                "of their own, it needs an id_map, which 'fakd data check' suggests."
            )
        label[label < 0] = self.ignore_value
        return label.astype(np.uint8 if self.fits_byte else np.int32)


def _as_tensor(image: np.ndarray) -> torch.Tensor:
    """(C, H, W) of an (H, W, C) image."""
    return torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))


def common_label_ids(names: tuple[str, ...], num_classes: int) -> tuple[int, Mapping[int, int] | None]:
    """The void id and the map of label ids that the named datasets share.

    Raises:
        ValueError: a dataset's class names do not number ``num_classes``, they have another order than the
            first's, or the ids differ.
    """
    found = {}
    for name in names or ():
        metadata = MetadataCatalog.get(name)
        classes = metadata.get("stuff_classes")
        if classes is not None and len(classes) != num_classes:
            raise ValueError(
                f"The dataset '{name}' has {len(classes)} classes, but MODEL.SEM_SEG_HEAD.NUM_CLASSES is "
                f"{num_classes}."
            )
        first = MetadataCatalog.get(names[0]).get("stuff_classes")
        check_order(first or (), classes or (), f"DATASETS.TRAIN: '{name}'")
        found[name] = metadata.get("ignore_label", 255), metadata.get("id_map")
    if len({ignore_label for ignore_label, _ in found.values()}) > 1:
        void_ids = {name: ignore_label for name, (ignore_label, _) in found.items()}
        raise ValueError(f"DATASETS.TRAIN mixes datasets with different void ids: {void_ids}.")
    if any(id_map != found[names[0]][1] for _, id_map in found.values()):
        raise ValueError(f"DATASETS.TRAIN mixes datasets with different id maps: {', '.join(names)}.")
    return found[names[0]] if names else (255, None)
