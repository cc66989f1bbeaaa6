"""Predictions as files (label images, and run lengths in COCO's format as detectron2 writes them) and as
images in TensorBoard."""

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pycocotools.mask
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from PIL import Image
from torch import Tensor

from fakd.data.bands import read_shown
from fakd.data.datasets.colours import colour_map, palette
from fakd.data.labels import label_reader
from fakd.data.selection import evenly_spaced
from fakd.files import atomic_write

FORMATS = ("png", "json")


def write_label_picture(path: Path, label: np.ndarray, palette: np.ndarray) -> None:
    """Writes ids as a PNG, of one byte with a palette, or of two bytes where one does not hold them.

    Args:
        path: of the file; its folder is made.
        label: (H, W) ids, less than V.
        palette: (V, 3) uint8 RGB by id.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(label.astype(np.uint8 if len(palette) <= 256 else np.uint16))
    if picture.mode == "L":
        picture.putpalette(palette.tobytes())
    with atomic_write(path) as file:
        picture.save(file, format="png")


class PredictionWriter(DatasetEvaluator):
    """Writes the predicted class of every pixel; gives no metrics.

    ``<folder>/<image_id>.png`` holds ids as the dataset's own label files have them, with its palette, and
    ``<folder>/sem_seg_predictions.json`` detectron2's list of ``file_name``, ``category_id`` and
    ``segmentation`` per image and class.

    Args:
        dataset_name: registered dataset.
        folder: to write into.
        formats: any of "png" and "json".

    Raises:
        ValueError: a format is none of these.
    """

    def __init__(self, dataset_name: str, folder: str | Path, formats: Sequence[str]) -> None:
        if unknown := set(formats) - set(FORMATS):
            raise ValueError(f"TEST.SAVE knows {' and '.join(FORMATS)}, not {', '.join(sorted(unknown))}.")
        metadata = MetadataCatalog.get(dataset_name)
        self._folder, self._formats = Path(folder), tuple(formats)
        ids = range(len(metadata.stuff_classes))
        # Several ids of the files may mean one class: the first is written.
        back = {new: old for old, new in reversed((metadata.get("id_map") or {}).items())}
        self._ids = np.array([back.get(i, i) for i in ids])
        self._palette = np.zeros((self._ids.max() + 1, 3), np.uint8)
        self._palette[self._ids] = metadata.get("stuff_colors") or colour_map(len(ids))
        self.reset()

    def reset(self) -> None:
        self._entries: list[dict] = []

    def process(self, inputs: list[dict], outputs: list[dict[str, Tensor]]) -> None:
        for image, output in zip(inputs, outputs, strict=True):
            label = self._ids[output["sem_seg"].max(dim=0).indices.cpu().numpy()]
            if "png" in self._formats:
                write_label_picture(self._folder / f"{image['image_id']}.png", label, self._palette)
            if "json" in self._formats:
                self._entries += [_run_lengths(image["file_name"], label, i) for i in np.unique(label)]

    def evaluate(self) -> None:
        if "json" not in self._formats:
            return
        gathered = comm.gather(self._entries)
        if comm.is_main_process():
            self._folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._folder / "sem_seg_predictions.json", "w") as file:
                json.dump(list(itertools.chain(*gathered)), file)


class PredictionImages(DatasetEvaluator):
    """Shows a few images, their truth and the prediction side by side in TensorBoard; gives no metrics.

    They are the same images at every evaluation, spread over what the first rank evaluates.

    Args:
        dataset_name: registered dataset.
    """

    _COUNT = 4  # at most
    _WIDTH = 512  # of one of the three pictures, at most

    def __init__(self, dataset_name: str) -> None:
        metadata = MetadataCatalog.get(dataset_name)
        self._name, self._palette = dataset_name, palette(metadata)
        self._read_label = label_reader(metadata)
        records = DatasetCatalog.get(dataset_name)
        records = records[: math.ceil(len(records) / comm.get_world_size())]  # a rank gets neighbours
        shown = evenly_spaced(records, self._COUNT)
        self._labels = {r["file_name"]: r["sem_seg_file_name"] for r in shown}
        self.reset()

    def reset(self) -> None:
        self._strips: dict[str, np.ndarray] = {}

    def process(self, inputs: list[dict], outputs: list[dict[str, Tensor]]) -> None:
        for image, output in zip(inputs, outputs, strict=True):
            file = image["file_name"]
            if file in self._labels and comm.is_main_process():
                truth = self._palette[self._read_label(self._labels[file])]
                prediction = self._palette[output["sem_seg"].max(dim=0).indices.cpu().numpy()]
                step = math.ceil(truth.shape[1] / self._WIDTH)
                parts = (read_shown(file), truth, prediction)
                strip = np.concatenate([part[::step, ::step] for part in parts], axis=1)
                # A file's name of other bytes than UTF-8 cannot be written into TensorBoard's file.
                tag = str(image["image_id"]).encode("utf-8", "backslashreplace").decode("utf-8")
                self._strips[tag] = strip

    def evaluate(self) -> None:
        for image, strip in self._strips.items():
            get_event_storage().put_image(f"{self._name}/{image}", strip.transpose(2, 0, 1))


def _run_lengths(file_name: str, label: np.ndarray, category: int) -> dict:
    encoded = pycocotools.mask.encode(np.asfortranarray(label == category, dtype=np.uint8))
    segmentation = {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}
    return {"file_name": file_name, "category_id": int(category), "segmentation": segmentation}
