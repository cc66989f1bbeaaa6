"""Datasets that are a folder of images and a folder of label pictures with the same stems."""

import os

from PIL import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


def datasets_root() -> str:
    """The root of all datasets, as everywhere in detectron2: ``DETECTRON2_DATASETS`` or ``datasets``."""
    return os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))


def list_pairs(image_folder: str, label_folder: str, remedy: str) -> list[dict]:
    """Lists a split as detectron2 dataset dicts, sorted by file name.

    Args:
        image_folder: holds png or jpg images.
        label_folder: holds one ``<stem>.png`` of class ids per image.
        remedy: a sentence saying how to get the dataset, appended to the errors.

    Returns:
        Dicts with ``file_name``, ``sem_seg_file_name``, ``height``, ``width``, ``image_id``.

    Raises:
        FileNotFoundError: a folder is missing or holds no image, or an image has no label.
        ValueError: two images share a stem, or an image cannot be read.
    """
    for folder in (image_folder, label_folder):
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"No folder '{os.path.abspath(folder)}'. {remedy}")
    names = sorted(name for name in os.listdir(image_folder) if name.lower().endswith(IMAGE_SUFFIXES))
    if not names:
        raise FileNotFoundError(f"No png or jpg image in '{os.path.abspath(image_folder)}'. {remedy}")
    labels = set(os.listdir(label_folder))
    records: dict[str, dict] = {}
    for name in names:
        stem = os.path.splitext(name)[0]
        if stem in records:
            raise ValueError(f"Two images with the stem '{stem}' in '{os.path.abspath(image_folder)}'.")
        if f"{stem}.png" not in labels:
            raise FileNotFoundError(
                f"No label '{os.path.abspath(label_folder)}/{stem}.png' for the image "
                f"'{os.path.abspath(image_folder)}/{name}'. {remedy}"
            )
        records[stem] = _record(os.path.join(image_folder, name), os.path.join(label_folder, f"{stem}.png"))
    return list(records.values())


def _record(image_file: str, label_file: str) -> dict:
    try:
        with Image.open(image_file) as picture:  # reads the header only
            width, height = picture.size
    except OSError as error:
        raise ValueError(f"Cannot read the image '{image_file}': {error}") from error
    return {
        "file_name": image_file,
        "sem_seg_file_name": label_file,
        "height": height,
        "width": width,
        "image_id": os.path.splitext(os.path.basename(image_file))[0],
    }
