"""A small dataset on disk and a config that reads it."""

import os
import struct
import zlib
from collections.abc import Sequence

import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from fakd import add_fakd_config
from fakd.data.datasets.folders import list_pairs
from fakd.data.datasets.toyscenes import CLASSES, draw_scene

NUM_IMAGES = 7


def write_pairs(root, number: int) -> None:
    for name in ("images", "labels"):
        os.makedirs(root / name)
    for seed in range(number):
        image, label = draw_scene(seed)
        Image.fromarray(image).save(root / "images" / f"{seed}.png")
        Image.fromarray(label).save(root / "labels" / f"{seed}.png")


def write_png(path, width: int, bits: int, colour_type: int, rows: Sequence[bytes]) -> str:
    """A png as its specification has it, of packed rows, for kinds that Pillow cannot write; its path."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return str(path)


@pytest.fixture(autouse=True)
def mine():
    """Datasets that a test describes as ``mine`` are gone after it."""
    yield
    for name in [name for name in DatasetCatalog.list() if name.startswith("mine_")]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def dataset(tmp_path):
    """The folder of a registered dataset ``small_test`` of seven scenes."""
    write_pairs(tmp_path, NUM_IMAGES)
    load = lambda: list_pairs(str(tmp_path / "images"), str(tmp_path / "labels"), "Draw it.")  # noqa: E731
    DatasetCatalog.register("small_test", load)
    metadata = MetadataCatalog.get("small_test")
    metadata.set(stuff_classes=[name for name, _ in CLASSES], ignore_label=255, evaluator_type="sem_seg")
    yield tmp_path
    DatasetCatalog.remove("small_test")
    MetadataCatalog.remove("small_test")


@pytest.fixture
def cfg() -> CfgNode:
    """A config for ``small_test``."""
    cfg = get_cfg()
    add_fakd_config(cfg)
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ("small_test",)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = len(CLASSES)
    cfg.INPUT.CROP.SIZE = (64, 72)
    cfg.SOLVER.IMS_PER_BATCH = 4
    cfg.DATALOADER.NUM_WORKERS = 0
    return cfg
