"""Datasets known by name: importing this package registers them in detectron2's catalogs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from detectron2.data import DatasetCatalog, MetadataCatalog

from . import ade20k, camvid, cityscapes, coco_stuff, pascal_context, toyscenes, voc2012

Classes = tuple[tuple[str, tuple[int, int, int]], ...]


@dataclass(frozen=True)
class Dataset:
    """A dataset whose files this library knows how to find.

    Attributes:
        load: split -> detectron2 dataset dicts; looks for the files when it is called.
        splits: split -> published number of images; registered as ``<dataset>_<split>``.
        classes: name and colour, in the order of the class ids.
        ignore_label: id of void.
        id_map: from ids in the label files to class ids, where they differ.
    """

    load: Callable[[str], list[dict]]
    splits: Mapping[str, int]
    classes: Classes
    ignore_label: int = 255
    id_map: Mapping[int, int] | None = None


_context = partial(Dataset, pascal_context.load_pascal_context, pascal_context.SPLITS)
_toyscenes_sizes = {split: len(seeds) for split, seeds in toyscenes.SPLITS.items()}

DATASETS = {
    "toyscenes": Dataset(toyscenes.load_toyscenes, _toyscenes_sizes, toyscenes.CLASSES),
    "camvid": Dataset(camvid.load_camvid, camvid.SPLITS, camvid.CLASSES, camvid.VOID),
    "ade20k": Dataset(ade20k.load_ade20k, ade20k.SPLITS, ade20k.CLASSES),
    "cityscapes": Dataset(cityscapes.load_cityscapes, cityscapes.SPLITS, cityscapes.CLASSES),
    "pascal_context_59": _context(pascal_context.CLASSES_59, id_map=pascal_context.ID_MAP_59),
    "pascal_context_60": _context(pascal_context.CLASSES_60),
    "voc2012_aug": Dataset(voc2012.load_voc2012, voc2012.SPLITS, voc2012.CLASSES),
    "coco_stuff_164k": Dataset(
        coco_stuff.load_coco_stuff, coco_stuff.SPLITS, coco_stuff.CLASSES, id_map=coco_stuff.ID_MAP
    ),
}


def register_all() -> None:
    """Registers ``<dataset>_<split>`` for all of :data:`DATASETS`; names that are taken are left alone.

    Nothing is read or drawn here: the folders are looked up when a dataset is first asked for, so
    ``DETECTRON2_DATASETS`` may still be set after the import.
    """
    for name, dataset in DATASETS.items():
        for split in dataset.splits:
            _register(f"{name}_{split}", split, dataset)


def _register(name: str, split: str, dataset: Dataset) -> None:
    if name in DatasetCatalog.list():
        return
    DatasetCatalog.register(name, partial(dataset.load, split))
    MetadataCatalog.get(name).set(
        stuff_classes=[class_name for class_name, _ in dataset.classes],
        stuff_colors=[list(colour) for _, colour in dataset.classes],
        ignore_label=dataset.ignore_label,
        id_map=dataset.id_map,
        num_images=dataset.splits[split],
        evaluator_type="sem_seg",
    )


register_all()
