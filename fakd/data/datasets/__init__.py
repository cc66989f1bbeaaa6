"""Datasets known by name: importing this package registers them in detectron2's catalogs."""

from functools import partial

from detectron2.data import DatasetCatalog, MetadataCatalog

from . import camvid, toyscenes


def register_all() -> None:
    """Registers ``toyscenes_*`` and ``camvid_*``; names that are already registered are left alone.

    Nothing is read or drawn here: the folders are looked up when a dataset is first asked for, so
    ``DETECTRON2_DATASETS`` may still be set after the import.
    """
    for split in toyscenes.SPLITS:
        _register(f"toyscenes_{split}", partial(toyscenes.load_toyscenes, split), toyscenes)
    for split in camvid.SPLITS:
        _register(f"camvid_{split}", partial(camvid.load_camvid, split), camvid)


def _register(name: str, load: partial, dataset) -> None:
    if name in DatasetCatalog.list():
        return
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(
        stuff_classes=[class_name for class_name, _ in dataset.CLASSES],
        stuff_colors=[list(colour) for _, colour in dataset.CLASSES],
        ignore_label=dataset.VOID,
        evaluator_type="sem_seg",
    )


register_all()
