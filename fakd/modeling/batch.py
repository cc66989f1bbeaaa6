"""A batch as tensors on the device, from the samples that the loader gives."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.structures import ImageList
from torch import Tensor


def stack_images(samples: list[dict[str, Any]], padding: Tensor) -> ImageList:
    """The raw images as one float batch, padded on the right and bottom.

    Args:
        samples: each with ``image`` (C, H, W).
        padding: (C, 1, 1) value per channel of what is padded, on the device of the batch. A network's
            ``pixel_mean`` is zero once normalised, with which convolutions pad too.
    """
    raw = [x["image"].to(padding.device, non_blocking=True) for x in samples]
    if len({x.shape for x in raw}) == 1:
        return ImageList(torch.stack(raw).float(), [tuple(x.shape[-2:]) for x in raw])
    centred = ImageList.from_tensors([x - padding for x in raw])
    return ImageList(centred.tensor + padding, centred.image_sizes)


def teacher_images(samples: list[dict[str, Any]], images: Tensor, padding: Tensor) -> Tensor:
    """What the teacher is shown of a batch: ``teacher_image`` of the samples, else what the student is.

    Args:
        samples: all with ``teacher_image``, as INPUT.STRONG gives them, or none.
        images: (N, C, H, W), the student's.
        padding: see :func:`stack_images`.
    """
    if "teacher_image" not in samples[0]:
        return images
    return stack_images([{"image": each["teacher_image"]} for each in samples], padding).tensor


def stack_labels(samples: list[dict[str, Any]], ignore_value: int, device: torch.device) -> Tensor:
    """(N, H, W) int64 labels, from ``sem_seg`` of each sample, padded with ``ignore_value``."""
    labels = [x["sem_seg"].to(device, torch.int64, non_blocking=True) for x in samples]
    return ImageList.from_tensors(labels, pad_value=ignore_value).tensor


def stack_unlabelled(samples: list[dict[str, Any]], labels: Tensor) -> Tensor | None:
    """(N, H, W) bool, the pixels of images without labels as the mapper marks them; None if there are none.

    Args:
        samples: per image, where it has no label, ``unlabelled`` (H, W) bool.
        labels: (N, H, W), of the same batch.
    """
    if not any("unlabelled" in item for item in samples):
        return None
    masks = [
        item["unlabelled"].to(labels.device, non_blocking=True)
        if "unlabelled" in item
        else torch.zeros_like(item["sem_seg"], dtype=torch.bool, device=labels.device)
        for item in samples
    ]
    return ImageList.from_tensors(masks, pad_value=False).tensor
