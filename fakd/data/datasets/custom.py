"""The user's own data: a yaml file that says where images and labels are, and what the ids mean.

``docs/add_a_dataset.md`` explains the file. Configs name it (``DATASETS.CUSTOM``), so that every process that
gets the config can register what it describes: catalogs are not shared between processes.
"""

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog

from .colours import colour_map
from .folders import list_pairs, make_record

_KEYS = {"name", "root", "classes", "ignore_label", "id_map", "splits"}
_SPLIT_KEYS = {"images", "labels", "image_suffix", "label_suffix"}


@dataclass(frozen=True)
class CustomDataset:
    """What a dataset's yaml says, checked.

    Attributes:
        path: of the yaml.
        name: datasets are registered as ``<name>_<split>``.
        root: folder that relative paths start from.
        classes: name and colour, in the order of the class ids.
        ignore_label: id of void.
        id_map: from ids in the files to class ids, or None if they are the same.
        splits: by name, ``images`` and ``labels``: a folder, a text file of paths, or a list of paths.
    """

    path: str
    name: str
    root: str
    classes: tuple[tuple[str, tuple[int, ...]], ...]
    ignore_label: int
    id_map: dict[int, int] | None
    splits: dict[str, dict[str, Any]]


def register_custom(paths: Sequence[str] | None) -> list[str]:
    """Registers the datasets of ``DATASETS.CUSTOM``; a file that was registered before is read anew.

    Args:
        paths: of yaml files; None or empty for none.

    Returns:
        The registered names.

    Raises:
        FileNotFoundError: there is no such yaml.
        ValueError, KeyError: it does not describe a dataset, or a name is taken by another; the message says
            where and what.
    """
    names = []
    for path in paths or ():
        dataset = read_custom(path)
        for split in dataset.splits:
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
        stuff_classes=[class_name for class_name, _ in dataset.classes],
        stuff_colors=[list(colour) for _, colour in dataset.classes],
        ignore_label=dataset.ignore_label,
        id_map=dataset.id_map,
        evaluator_type="sem_seg",
        custom_file=dataset.path,
    )


def read_custom(path: str) -> CustomDataset:
    """Reads and checks a dataset's yaml; images and labels are looked for when the dataset is first used.

    Raises:
        FileNotFoundError, ValueError, KeyError: see :func:`register_custom`.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"DATASETS.CUSTOM: there is no file '{path}' (looked from {Path.cwd()}).")
    try:
        given = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as yaml: {error}") from error
    _check_keys(given, _KEYS, {"classes", "splits"}, path)
    if not isinstance(given["splits"], dict) or not given["splits"]:
        raise ValueError(f"{path}: splits must be one or more names, each with its images and labels.")
    for split, entry in given["splits"].items():
        _check_keys(entry, _SPLIT_KEYS, {"images", "labels"}, f"{path}: splits: {split}")
    classes = _classes(given["classes"], path)
    ignore_label = given.get("ignore_label", 255)
    if not isinstance(ignore_label, int) or 0 <= ignore_label < len(classes):
        raise ValueError(
            f"{path}: ignore_label is {ignore_label!r}, but it must be a number that is no class id."
        )
    return CustomDataset(
        path=str(file.resolve()),
        name=str(given.get("name", file.stem)),
        root=os.path.join(file.resolve().parent, os.path.expandvars(str(given.get("root", ".")))),
        classes=classes,
        ignore_label=ignore_label,
        id_map=_id_map(given.get("id_map"), len(classes), ignore_label, path),
        splits=given["splits"],
    )


def _check_keys(given: Any, known: set[str], needed: set[str], where: str) -> None:
    if not isinstance(given, dict):
        raise ValueError(
            f"{where}: expected keys ({', '.join(sorted(known))}), found {type(given).__name__}."
        )
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(sorted(known))}."
            raise KeyError(f"{where}: there is no key '{key}'. {hint}")
    if missing := sorted(needed - given.keys()):
        raise KeyError(f"{where}: the key '{missing[0]}' is missing.")


def _classes(given: Any, path: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    names = [str(name) for name in given]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{path}: classes must be names, each of them once; got {names}.")
    colours = given.values() if isinstance(given, dict) else colour_map(len(names))
    colours = [tuple(colour) for colour in colours]
    for name, colour in zip(names, colours, strict=True):
        if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
            raise ValueError(f"{path}: the colour of '{name}' must be [red, green, blue], each 0 to 255.")
    return tuple(zip(names, colours, strict=True))


def _id_map(given: Any, num_classes: int, ignore_label: int, path: str) -> dict[int, int] | None:
    if given is None:
        return None
    for old, new in given.items():
        if not isinstance(old, int) or old < 0 or not (new == ignore_label or new in range(num_classes)):
            raise ValueError(
                f"{path}: id_map says {old!r}: {new!r}; it must lead from an id in the files to a class id "
                f"in [0, {num_classes}) or to ignore_label, {ignore_label}."
            )
    return dict(given)


def load_custom(dataset: CustomDataset, split: str) -> list[dict]:
    """Lists one split as detectron2 dataset dicts.

    Raises:
        FileNotFoundError, ValueError: a folder, list or file is missing, or lists have different lengths.
    """
    entry = dataset.splits[split]
    where = f"Named in '{dataset.path}', splits: {split}."
    images, labels = (_resolve(entry[key], dataset.root) for key in ("images", "labels"))
    if isinstance(images, str) and isinstance(labels, str):
        suffixes = {key: entry[key] for key in ("image_suffix", "label_suffix") if key in entry}
        return list_pairs(images, labels, where, **suffixes)
    if isinstance(images, str) or isinstance(labels, str):
        raise ValueError(f"images and labels must both be folders or both be lists. {where}")
    if not images or len(images) != len(labels):
        raise ValueError(f"{len(images)} images and {len(labels)} labels; expected as many of both. {where}")
    for file in (*images, *labels):
        if not os.path.isfile(file):
            raise FileNotFoundError(f"No file '{file}'. {where}")
    return [
        make_record(*pair, image_id=f"{i:06d}") for i, pair in enumerate(zip(images, labels, strict=True))
    ]


def _resolve(given: Any, root: str) -> str | list[str]:
    """A folder, or the files of a list, as absolute paths."""
    if isinstance(given, list):
        return [os.path.join(root, os.path.expandvars(str(path))) for path in given]
    path = os.path.normpath(os.path.join(root, os.path.expandvars(str(given))))
    if os.path.isfile(path):
        with open(path) as file:
            return [os.path.join(os.path.dirname(path), line.strip()) for line in file if line.strip()]
    return path
