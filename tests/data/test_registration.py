import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from fakd.data import datasets

NAMES = ["toyscenes_train", "toyscenes_val", "camvid_train", "camvid_val", "camvid_test"]


@pytest.mark.parametrize("name", NAMES)
def test_metadata_is_complete(name):
    assert name in DatasetCatalog.list()
    metadata = MetadataCatalog.get(name)
    number = 12 if name.startswith("toyscenes") else 11
    assert len(metadata.stuff_classes) == len(set(metadata.stuff_classes)) == number
    assert len({tuple(colour) for colour in metadata.stuff_colors}) == len(metadata.stuff_colors) == number
    assert metadata.ignore_label == (255 if number == 12 else 11)
    assert metadata.evaluator_type == "sem_seg"


def test_registering_twice_changes_nothing():
    before = DatasetCatalog.list()
    datasets.register_all()
    assert DatasetCatalog.list() == before
