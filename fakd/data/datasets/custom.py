"""The user's own data: a yaml file that says where images and labels are, and what the ids mean.

``docs/add_a_dataset.md`` explains the file. Configs name it (``DATASETS.CUSTOM``), so that every process that
gets the config can register what it describes: catalogs are not shared between processes.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from pydantic import Field, field_validator, model_validator

from fakd.files import shipped
from fakd.validation import Strict, parse, read_yaml

from .colours import colour_map
from .folders import list_pairs, list_pictures, make_record

WITHOUT_LABELS = "unlabelled"  # begins the names of splits of images alone
LARGEST_ID = 65535  # of a label picture of 16 bits
# Names become parts of file names: of contact sheets, of folders of predictions.
_NAME = re.compile(r"\w[\w .-]*")


class Split(Strict):
    """Images and their labels: two folders, or two lists or text files of paths.

    Attributes:
        images, labels: a folder, a text file of paths, or a list of paths; a split whose name begins with
            "unlabelled" has no labels.
        image_suffix: end of the names of a folder's images; "" takes every png and jpg.
        label_suffix: likewise of labels, which are else named as their image.
    """

    images: Any
    labels: Any = None
    image_suffix: str = ""
    label_suffix: str = ".png"

    @field_validator("images", "labels")
    @classmethod
    def _are_paths(cls, given: Any) -> Any:
        paths = given if isinstance(given, list) else [given]
        if not all(isinstance(path, str) and path and "\0" not in path for path in paths):
            raise ValueError(f"must be a folder, a text file of paths or a list of paths, not {given!r}")
        return given


class Description(Strict):
    """The keys of a dataset's yaml file.

    Attributes:
        name: datasets are registered as ``<name>_<split>``; default the file's own.
        root: folder that relative paths start from; if it is relative itself, from the file's folder. "~" and
            variables of the environment are replaced.
        classes: names, or names with colours, in the order of the class ids; read as pairs of both.
        channels: of an image; other than three, or npy and tif of more than 8 bits, are read as arrays.
        ignore_label: id of void.
        id_map: from ids in the files to class ids or ``ignore_label``, or None if they are the same.
        splits: by name.
    """

    name: str = ""
    root: str = "."
    classes: Any
    channels: int = Field(3, ge=1)
    ignore_label: int = Field(255, ge=0, le=LARGEST_ID)
    id_map: dict[int, int] | None = None
    splits: dict[str, Split] = Field(min_length=1)

    @field_validator("name", "splits")
    @classmethod
    def _make_file_names(cls, given: Any) -> Any:
        for name in given if isinstance(given, Mapping) else filter(None, [given]):
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r} must begin with a letter or digit and hold these, spaces, _ . and - alone"
                )
        return given

    @field_validator("classes")
    @classmethod
    def _have_names_and_colours(cls, given: Any) -> tuple[tuple[str, tuple[int, ...]], ...]:
        if not isinstance(given, list | dict) or not all(isinstance(name, str | int) for name in given):
            raise ValueError(f"must be a list of names, or names with colours, not {given!r}")
        if boolean := [name for name in given if isinstance(name, bool)]:
            raise ValueError(f"yaml reads a name as {str(boolean[0]).lower()}: put it in quotes")
        names = [str(name) for name in given]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"must be names, each of them once, not {names}")
        if unseen := [name for name in names if not name.strip() or not name.isprintable()]:
            raise ValueError(
                f"{unseen[0]!r} is no name for tables and plots: write one with a visible character, and "
                "without line breaks or control characters"
            )
        colours = list(given.values()) if isinstance(given, dict) else colour_map(len(names))
        for name, colour in zip(names, colours, strict=True):
            if (
                not isinstance(colour, list | tuple)
                or len(colour) != 3
                or not all(isinstance(value, int) and 0 <= value <= 255 for value in colour)
            ):
                raise ValueError(
                    f"the colour of '{name}' must be [red, green, blue], each 0 to 255, not {colour!r}"
                )
        return tuple((name, tuple(colour)) for name, colour in zip(names, colours, strict=True))

    @model_validator(mode="after")
    def _have_labels_unless_named_so(self) -> "Description":
        for name, split in self.splits.items():
            if split.labels is None and not name.startswith(WITHOUT_LABELS):
                raise ValueError(
                    f"splits.{name}.labels is missing; a split of images alone has a name that begins with "
                    f"'{WITHOUT_LABELS}'"
                )
            if split.labels is not None and name.startswith(WITHOUT_LABELS):
                raise ValueError(
                    f"splits.{name} names labels, which would not be read: give the split another name to "
                    "use them, or leave them out"
                )
        return self

    @model_validator(mode="after")
    def _tell_ids_apart(self) -> "Description":
        number, void = len(self.classes), self.ignore_label
        if void < number:
            raise ValueError(f"ignore_label is {void}, but it must be a number that is no class id")
        for old, new in (self.id_map or {}).items():
            if not 0 <= old <= LARGEST_ID or not (new == void or 0 <= new < number):
                raise ValueError(
                    f"id_map says {old}: {new}; it must lead from an id in the files, 0 to {LARGEST_ID}, to "
                    f"a class id in [0, {number}) or to ignore_label, {void}"
                )
        return self


@dataclass(frozen=True)
class CustomDataset:
    """A description and its file.

    Attributes:
        path: of the yaml, absolute.
        name: of the description, or the file's own.
        root: absolute.
    """

    path: str
    name: str
    root: str
    description: Description


def register_custom(paths: Sequence[str] | None) -> list[str]:
    """Registers the datasets of ``DATASETS.CUSTOM``; a file that was registered before is read anew.

    Args:
        paths: of yaml files; None or empty for none.

    Returns:
        The registered names.

    Raises:
        FileNotFoundError: there is no such yaml.
        ValueError: it does not describe a dataset, or a name is taken by another; the message says where and
            what.
    """
    names = []
    for path in paths or ():
        dataset = read_custom(path)
        for split in dataset.description.splits:
            _register(f"{dataset.name}_{split}", split, dataset)
            names.append(f"{dataset.name}_{split}")
    return names


def _register(name: str, split: str, dataset: CustomDataset) -> None:
    if name in DatasetCatalog.list():
        owner = MetadataCatalog.get(name).get("custom_file")
        if owner != dataset.path:
            raise ValueError(
                f"{dataset.path}: the name '{name}' is taken by {owner or 'a dataset of the library'}. "
                "Choose another 'name'."
            )
        DatasetCatalog.remove(name)
    if name in MetadataCatalog.list():
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, partial(load_custom, dataset, split))
    MetadataCatalog.get(name).set(
        stuff_classes=[class_name for class_name, _ in dataset.description.classes],
        stuff_colors=[list(colour) for _, colour in dataset.description.classes],
        ignore_label=dataset.description.ignore_label,
        id_map=dataset.description.id_map or None,
        channels=dataset.description.channels,
        evaluator_type="sem_seg",
        custom_file=dataset.path,
    )


def read_custom(path: str) -> CustomDataset:
    """Reads and checks a dataset's yaml; images and labels are looked for when the dataset is first used.

    Raises:
        FileNotFoundError, ValueError: see :func:`register_custom`.
    """
    file = Path(shipped(path)).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"DATASETS.CUSTOM: there is no file '{path}' (looked from {Path.cwd()}).")
    description = parse(Description, read_yaml(file), path)
    name = description.name or file.stem
    if not _NAME.fullmatch(name):
        raise ValueError(f"{path}: '{name}', the file's own name, cannot be a dataset's: give it a 'name'.")
    root = os.path.expanduser(os.path.expandvars(description.root))
    root = os.path.join(file.resolve().parent, root)
    return CustomDataset(str(file.resolve()), name, root, description)


def load_custom(dataset: CustomDataset, split: str) -> list[dict]:
    """Lists one split as detectron2 dataset dicts.

    Raises:
        FileNotFoundError, ValueError: a folder, list or file is missing, or lists have different lengths.
    """
    entry = dataset.description.splits[split]
    where = f"Named in '{dataset.path}', splits: {split}."
    images = _resolve(entry.images, dataset.root, where)
    if entry.labels is None:
        if isinstance(images, str):
            return list_pictures(images, where, entry.image_suffix)
        _check_files(images, where)
        return [make_record(image, None, image_id=f"{i:06d}") for i, image in enumerate(images)]
    labels = _resolve(entry.labels, dataset.root, where)
    if isinstance(images, str) and isinstance(labels, str):
        return list_pairs(images, labels, where, entry.image_suffix, entry.label_suffix)
    if isinstance(images, str) or isinstance(labels, str):
        raise ValueError(f"images and labels must both be folders or both be lists. {where}")
    if not images or len(images) != len(labels):
        raise ValueError(f"{len(images)} images and {len(labels)} labels; expected as many of both. {where}")
    _check_files([*images, *labels], where)
    return [
        make_record(*pair, image_id=f"{i:06d}") for i, pair in enumerate(zip(images, labels, strict=True))
    ]


def _check_files(files: Sequence[str], where: str) -> None:
    for file in files:
        if not os.path.isfile(file):
            raise FileNotFoundError(f"No file '{file}'. {where}")
    if not files:
        raise ValueError(f"The list of images is empty. {where}")


def _resolve(given: str | list[str], root: str, where: str) -> str | list[str]:
    """A folder, or the files of a list, as absolute paths."""
    if isinstance(given, list):
        return [os.path.join(root, os.path.expandvars(path)) for path in given]
    path = os.path.normpath(os.path.join(root, os.path.expandvars(given)))
    if os.path.isfile(path):
        try:
            with open(path, encoding="utf-8-sig") as file:  # editors of Windows begin it with a mark
                return [os.path.join(os.path.dirname(path), line.strip()) for line in file if line.strip()]
        except UnicodeDecodeError as error:
            raise ValueError(f"'{path}' is no text file of paths: {error}. {where}") from error
    return path
