"""Labels from a network's own predictions, where it is sure enough, as a dataset to train on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from tqdm import tqdm

from fakd.data.check import draw_sheet
from fakd.data.datasets.custom import LARGEST_ID, load_custom, read_custom, register_custom
from fakd.evaluation.predictions import write_label_picture
from fakd.files import atomic_write

from .predictor import Predictor

_BINS = 1000  # of confidences, when a share of a class's pixels is kept


@dataclass(frozen=True)
class PseudoLabelReport:
    """What was written.

    Attributes:
        description: path of the dataset's yaml.
        sheet: path of the contact sheet.
        predicted: (K,) pixels that the network gave each class.
        kept: (K,) those of them that are sure enough.
        thresholds: (K,) the confidence that a class's pixels had to reach.
    """

    description: Path
    sheet: Path
    predicted: np.ndarray
    kept: np.ndarray
    thresholds: np.ndarray


def write_pseudo_labels(
    predictor: Predictor,
    files: Sequence[tuple[Path, str]],
    output: Path,
    confidence: float = 0.9,
    by_class: Mapping[str, float] | None = None,
    keep: float | None = None,
    ignore_label: int = 255,
) -> PseudoLabelReport:
    """Writes the labels of pictures, void where the network's probability of its class is below a threshold.

    ``output/labels/<name>.png`` holds the class ids, ``output/<output's name>.yaml`` describes pictures and
    labels as a dataset with the split ``train``, and ``output/<output's name>.png`` shows some of both. What
    a dataset's name cannot hold of the folder's is left out or an underscore there.

    Args:
        predictor: the network.
        files: pictures, with the name of each one's label.
        output: folder to write into.
        confidence: the threshold of all classes.
        by_class: other thresholds, by the class's name.
        keep: in place of thresholds, the share of the pixels predicted for each class, the surest ones, that
            is kept: rare classes, of which a network is never sure, keep theirs (Zou et al. 2018, CBST). All
            pictures are predicted twice. The surest pixels are found to 1 / 1000 of probability.
        ignore_label: id of void; choose that of the dataset that the labels are to be mixed with.

    Raises:
        ValueError: a class is not the network's, ``ignore_label`` is a class's id or more than 65535, another
            dataset has the name, a picture cannot be read, or no pixel is sure enough.
    """
    number = len(predictor.classes)
    if ignore_label < number:
        raise ValueError(f"--ignore-label {ignore_label} is the id of one of the {number} classes.")
    if ignore_label > LARGEST_ID:
        raise ValueError(
            f"--ignore-label {ignore_label} is more than {LARGEST_ID}, the largest id that a label picture "
            "holds. Choose a smaller one."
        )
    path = _description_file(output)
    thresholds = _thresholds(predictor, confidence, by_class or {})
    if keep is not None:
        thresholds = _thresholds_of_share(predictor, files, keep)
    predicted, kept = np.zeros(number, np.int64), np.zeros(number, np.int64)
    colours = np.zeros((ignore_label + 1, 3), np.uint8)
    colours[:number] = predictor.colours
    for (_, name), labels, sureness in _predictions(predictor, files, "labels"):
        sure = sureness >= thresholds[labels]
        predicted += np.bincount(labels.ravel(), minlength=number)
        kept += np.bincount(labels[sure], minlength=number)
        label = np.where(sure, labels, ignore_label)
        write_label_picture(output / "labels" / f"{name}.png", label, colours)
    if not kept.sum():
        raise ValueError(
            f"No pixel of {len(files)} pictures is as sure as --confidence {confidence:g}: the labels in "
            f"'{output / 'labels'}' are void. Lower it, or give --keep."
        )
    _describe(predictor, files, path, ignore_label)
    return PseudoLabelReport(path, path.with_suffix(".png"), predicted, kept, thresholds)


def _thresholds(predictor: Predictor, confidence: float, by_class: Mapping[str, float]) -> np.ndarray:
    thresholds = np.full(len(predictor.classes), confidence)
    for name, value in by_class.items():
        if name not in predictor.classes:
            near = ", ".join(difflib.get_close_matches(name, predictor.classes)) or "none"
            raise ValueError(f"--class-confidence: the network has no class '{name}'. Near: {near}.")
        thresholds[list(predictor.classes).index(name)] = value
    return thresholds


def _thresholds_of_share(predictor: Predictor, files: Sequence[tuple[Path, str]], keep: float) -> np.ndarray:
    """Per class the confidence that the surest ``keep`` of its pixels reach."""
    number = len(predictor.classes)
    counts = np.zeros((number, _BINS), np.int64)
    for _, labels, sureness in _predictions(predictor, files, "confidences"):
        place = np.minimum((sureness * _BINS).astype(np.int64), _BINS - 1)
        counts += np.bincount((labels * _BINS + place).ravel(), minlength=number * _BINS).reshape(
            counts.shape
        )
    above = counts[:, ::-1].cumsum(1)[:, ::-1]  # pixels of at least this confidence
    enough = above >= keep * counts.sum(1, keepdims=True)
    return (_BINS - 1 - enough[:, ::-1].argmax(1)) / _BINS


def _predictions(
    predictor: Predictor, files: Sequence[tuple[Path, str]], what: str
) -> Iterator[tuple[tuple[Path, str], np.ndarray, np.ndarray]]:
    for start in tqdm(range(0, len(files), predictor.batch_size), what, unit="batch"):
        batch = files[start : start + predictor.batch_size]
        found = predictor.predict_with_confidence([path for path, _ in batch])
        for file, (labels, sureness) in zip(batch, found, strict=True):
            yield file, labels.astype(np.int64), sureness


def _description_file(output: Path) -> Path:
    """The path of the dataset's yaml, of a name that no other dataset has.

    Raises:
        ValueError: another has it.
    """
    name = re.sub(r"[^\w .-]", "_", output.resolve().name).lstrip(" .-") or "pseudo"
    path = output / f"{name}.yaml"
    taken = f"{name}_train"
    if taken in DatasetCatalog.list():
        owner = MetadataCatalog.get(taken).get("custom_file")
        if owner != str(path.resolve()):
            raise ValueError(
                f"--output '{output}': the name '{taken}' of the dataset that would be written is taken by "
                f"{owner or 'a dataset of the library'}. Give a folder of another name."
            )
    return path


def _describe(predictor: Predictor, files: Sequence[tuple[Path, str]], path: Path, ignore_label: int) -> None:
    """Writes the dataset's yaml and its contact sheet."""
    split: dict[str, str | list[str]] = {}
    lists = {
        "images": [str(picture.resolve()) for picture, _ in files],
        "labels": [f"labels/{name}.png" for _, name in files],
    }
    for name, lines in lists.items():
        if all(line.isprintable() and line == line.strip() for line in lines):
            split[name] = f"{name}.txt"
            with atomic_write(path.with_name(f"{name}.txt"), "w") as file:
                file.write("\n".join(lines) + "\n")
        else:  # a text file would break a path at a newline
            split[name] = lines
    classes = {
        name: colour.tolist() for name, colour in zip(predictor.classes, predictor.colours, strict=True)
    }
    with atomic_write(path, "w") as file:
        content = {"classes": classes, "ignore_label": ignore_label, "splits": {"train": split}}
        if predictor.channels != 3:
            content["channels"] = predictor.channels
        yaml.safe_dump(content, file, sort_keys=False)
    (name,) = register_custom([str(path)])
    records = load_custom(read_custom(str(path)), "train")
    draw_sheet(records, MetadataCatalog.get(name), path.with_suffix(".png"))
