"""Datasets that are images and label pictures in folders or lists, as detectron2 dataset dicts."""

import logging
import os
from collections.abc import Iterable, Mapping

from ..bands import array_size

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


def datasets_root() -> str:
    """The root of all datasets, as everywhere in detectron2: ``DETECTRON2_DATASETS`` or ``datasets``."""
    return os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))


def list_pairs(
    image_folder: str,
    label_folder: str,
    remedy: str,
    image_suffix: str = "",
    label_suffix: str = ".png",
    stems: Iterable[str] | None = None,
) -> list[dict]:
    """Lists a split as detectron2 dataset dicts, sorted by file name; subfolders count as part of the name.

    Args:
        image_folder: holds png or jpg images.
        label_folder: holds one ``<stem><label_suffix>`` of class ids per image ``<stem><image_suffix>``.
        remedy: a sentence saying how to get the dataset, appended to the errors.
        image_suffix: end of the images' names; "" takes every png and jpg.
        label_suffix: end of the labels' names.
        stems: take only these, in this order, as a split file lists them.

    Returns:
        Dicts with ``file_name``, ``sem_seg_file_name``, ``height``, ``width``, ``image_id``.

    Raises:
        FileNotFoundError: a folder is missing or holds no image, or an image has no label.
        ValueError: two images share a stem, or an image cannot be read.
    """
    for folder in (image_folder, label_folder):
        _check_folder(folder, remedy)
    images = _images(image_folder, image_suffix, remedy)
    labels = set(_files(label_folder))
    records = []
    for stem in images if stems is None else stems:
        if stem not in images:
            raise FileNotFoundError(
                f"No image '{os.path.abspath(image_folder)}/{stem}{image_suffix or '.jpg'}'. {remedy}"
            )
        if f"{stem}{label_suffix}" not in labels:
            raise FileNotFoundError(
                f"No label '{os.path.abspath(label_folder)}/{stem}{label_suffix}' for the image "
                f"'{os.path.abspath(image_folder)}/{images[stem]}'. {remedy}"
            )
        label_file = os.path.join(label_folder, f"{stem}{label_suffix}")
        records.append(make_record(os.path.join(image_folder, images[stem]), label_file, stem))
    return records


def list_pictures(folder: str, remedy: str, image_suffix: str = "") -> list[dict]:
    """Lists a folder of images without labels as detectron2 dataset dicts, sorted by file name.

    Args:
        folder: holds png or jpg images.
        remedy, image_suffix: see :func:`list_pairs`.

    Returns:
        Dicts without ``sem_seg_file_name``. There is a warning if files look like the images' labels.

    Raises:
        FileNotFoundError: the folder is missing or holds no image.
        ValueError: two images share a stem, of which one may be the other's label, or one cannot be read.
    """
    _check_folder(folder, remedy)
    images = _images(folder, image_suffix, remedy)
    if beside := _labels_beside(folder, images):
        logger.warning(
            "'%s' is taken for images without labels, but '%s' looks like the label of one of them. If it "
            "is, name the folder of the labels beside that of the images; if labels lie among the images, "
            "tell these apart by image_suffix. %s",
            folder,
            beside,
            remedy,
        )
    return [make_record(os.path.join(folder, name), None, stem) for stem, name in images.items()]


def _labels_beside(folder: str, images: Mapping[str, str]) -> str:
    """A file that looks like an image's label: of its name with another end, or in a folder beside; or ""."""
    stem = next(iter(images))
    parent, own = os.path.split(os.path.normpath(folder))
    above, last = os.path.split(parent)
    places = [os.path.join(parent, name) for name in (f"{own}annot", "labels", "masks", "annotations")]
    if last in ("images", "img", "image"):
        places += [os.path.join(above, name, own) for name in ("labels", "masks", "annotations")]
    candidates = [os.path.join(place, f"{stem}.png") for place in places if place != os.path.normpath(folder)]
    ends = ("_label", "_labels", "_mask", "_labelIds", "_gt")
    candidates += [os.path.join(folder, f"{stem}{end}.png") for end in ends]
    return next(filter(os.path.isfile, candidates), "")


def _check_folder(folder: str, remedy: str) -> None:
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"No folder '{os.path.abspath(folder)}'. {remedy}")


def _images(folder: str, suffix: str, remedy: str) -> dict[str, str]:
    """The images of a folder by name without suffix, sorted."""
    images: dict[str, str] = {}
    for name in sorted(_files(folder)):
        if not (name.endswith(suffix) if suffix else name.lower().endswith(IMAGE_SUFFIXES)):
            continue
        stem = name[: -len(suffix)] if suffix else os.path.splitext(name)[0]
        if stem in images:
            raise ValueError(
                f"Two images with the stem '{stem}' in '{os.path.abspath(folder)}'. If one is the label of "
                "the other, tell them apart by their ends (image_suffix, label_suffix)."
            )
        images[stem] = name
    if not images:
        what = f"'*{suffix}'" if suffix else "png or jpg image"
        raise FileNotFoundError(f"No {what} in '{os.path.abspath(folder)}'. {remedy}")
    return images


def _files(folder: str) -> list[str]:
    """Names of all files below a folder, relative to it; a folder that links lead to again counts once."""
    found, seen = [], set()
    for path, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(path)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        # Links last, so that a folder keeps its own name if that is below the same one.
        links = {name for name in folders if os.path.islink(os.path.join(path, name))}
        folders[:] = [*sorted({*folders} - links), *sorted(links)]
        below = os.path.relpath(path, folder)
        for name in names:
            if _may_be_read(os.path.join(path, name)):
                found.append(name if below == "." else os.path.join(below, name))
    return found


def _may_be_read(path: str) -> bool:
    """Not a pipe, a device or such, whose opening may never end; a broken link's error will name it."""
    return os.path.isfile(path) or not os.path.exists(path)


def make_record(image_file: str, label_file: str | None, image_id: str) -> dict:
    """The dataset dict of an image with its label, or without; reads the header of the image only.

    Raises:
        ValueError: the image cannot be read, or it is its own label.
    """
    width, height = array_size(image_file)
    if label_file is not None and os.path.exists(label_file) and os.path.samefile(image_file, label_file):
        raise ValueError(
            f"The image '{image_file}' and its label '{label_file}' are the same file. Name the folder of "
            "the labels, or tell the two apart by their ends (image_suffix, label_suffix)."
        )
    return {
        "file_name": image_file,
        **({} if label_file is None else {"sem_seg_file_name": label_file}),
        "height": height,
        "width": width,
        "image_id": image_id,
    }


def read_stems(path: str, remedy: str) -> list[str]:
    """The names in a split file, one a line.

    Raises:
        FileNotFoundError: there is no such file or it is empty.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"No split file '{os.path.abspath(path)}'. {remedy}")
    with open(path) as file:
        stems = [line.split()[0] for line in file if line.strip()]
    if not stems:
        raise FileNotFoundError(f"The split file '{os.path.abspath(path)}' is empty. {remedy}")
    return stems
