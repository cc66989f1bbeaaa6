"""Damaged pictures are refused by name; none is read as another picture."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from material import small_segmentor
from PIL import Image

from fakd.config import load_config
from fakd.data import SemSegMapper, read_label
from fakd.data.check import check_dataset
from fakd.data.datasets.custom import register_custom
from fakd.data.datasets.toyscenes import CLASSES, draw_scene
from fakd.data.images import as_array, decode, open_image, read_image
from fakd.deploy.quantize import images_as_tested
from fakd.evaluation import SegEvaluator
from fakd.predict import read_picture
from fakd.predict.samples import load_samples

FLIPS = 200

#: How each kind of file is written, by the ending.
SAVED = {
    "png": {},
    "jpg": {"quality": 90},
    "progressive.jpg": {"quality": 90, "progressive": True},
    "tif": {"compression": "tiff_deflate"},
    "bmp": {},
    "gif": {},
    "webp": {"lossless": True},
}
#: Formats that hold checksums of all they hold.
CHECKED = ("png",)


@pytest.fixture(params=SAVED)
def stored(request, tmp_path):
    """A good file."""
    path = tmp_path / f"scene.{request.param}"
    Image.fromarray(draw_scene(0)[0]).save(path, **SAVED[request.param])
    return path


def half(path):
    """As training reads what it shrinks."""
    with open_image(path) as picture:
        return as_array(decode(picture, 0.4), "RGB")


def outcome(read, path, good):
    """ "same" or "other" pixels, or "refused" by a message that names the file."""
    try:
        found = read(str(path))
    except ValueError as error:
        assert str(path) in str(error)
        return "refused"
    return "same" if np.array_equal(found, good) else "other"


def flips(content: bytes):
    """The content with one bit flipped, at places all over it."""
    generator = np.random.RandomState(0)
    for place in np.linspace(0, len(content) - 1, FLIPS).astype(int):
        damaged = bytearray(content)
        damaged[place] ^= 1 << generator.randint(8)
        yield bytes(damaged)


@pytest.mark.parametrize("read", [read_image, half])
def test_a_flipped_bit_gives_the_same_pixels_or_an_error(stored, read):
    content, good = stored.read_bytes(), read(str(stored))
    found = []
    for damaged in flips(content):
        stored.write_bytes(damaged)
        found.append(outcome(read, stored, good))
    assert found.count("refused") > 0
    if stored.suffix[1:] in CHECKED:
        assert found.count("other") == 0 and found.count("refused") > 0.95 * FLIPS


@pytest.mark.parametrize("read", [read_image, half])
def test_what_was_cut_off_is_missed(stored, read):
    content, good = stored.read_bytes(), read(str(stored))
    for length in [*range(0, 64), *np.linspace(64, len(content) - 1, 100).astype(int)]:
        stored.write_bytes(content[:length])
        assert outcome(read, stored, good) != "other", length


@pytest.mark.parametrize("read", [read_image, half, read_picture])
def test_overwritten_parts_of_a_png_are_missed(tmp_path, read):
    path = tmp_path / "scene.png"
    Image.fromarray(draw_scene(0)[0]).save(path)
    content, good = path.read_bytes(), read(str(path))
    for start in np.linspace(8, len(content) - 512, 40).astype(int):
        path.write_bytes(content[:start] + bytes(512) + content[start + 512 :])
        assert outcome(read, path, good) == "refused", start


@pytest.mark.parametrize("palette", [False, True])
def test_a_damaged_label_is_missed(tmp_path, palette):
    path, label = tmp_path / "label.png", draw_scene(0)[1]
    saved = Image.fromarray(label)
    if palette:
        saved.putpalette(list(range(256)) * 3)
    saved.save(path)
    content, good = path.read_bytes(), read_label(str(path))
    for damaged in [*flips(content), *(content[:n] for n in range(0, len(content), 7))]:
        path.write_bytes(damaged)
        assert outcome(read_label, path, good) != "other"


@pytest.fixture
def dataset(tmp_path):
    """A folder with a described dataset ``hurt_all`` of three pairs."""
    for i in range(3):
        for folder, part in zip(("images", "labels"), draw_scene(i), strict=True):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(part).save(tmp_path / folder / f"{i}.png")
    names = ", ".join(name for name, _ in CLASSES)
    description = tmp_path / "hurt.yaml"
    description.write_text(f"classes: [{names}]\nsplits: {{all: {{images: images, labels: labels}}}}\n")
    register_custom([str(description)])
    yield tmp_path
    DatasetCatalog.remove("hurt_all")
    MetadataCatalog.remove("hurt_all")


def config():
    return load_config(opts=["DATASETS.TRAIN", "('hurt_all',)", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "12"])


def train(records):
    SemSegMapper(config())(records[1])


def predict(records):
    SemSegMapper(config(), is_train=False)(records[1])


def evaluate(records):
    evaluator = SegEvaluator("hurt_all")
    evaluator.reset()
    scores = np.zeros((12, 96, 128), np.float32)
    evaluator.process([records[1]], [{"sem_seg": torch.from_numpy(scores)}])


def calibrate(records):
    list(images_as_tested(config(), small_segmentor(), ("hurt_all",), 3))


def check(records):
    check_dataset("hurt_all", workers=1)


def report(records):
    load_samples("hurt_all", 3)


READERS = {"images": [train, predict, calibrate, check, report], "labels": [train, evaluate, check, report]}


@pytest.mark.parametrize(("folder", "read"), [(f, r) for f, readers in READERS.items() for r in readers])
@pytest.mark.parametrize("damage", ["flip", "cut", "zeros"])
def test_every_reader_names_a_damaged_file(dataset, folder, read, damage):
    records = DatasetCatalog.get("hurt_all")
    path = dataset / folder / "1.png"
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    if damage == "flip":
        content[middle] ^= 4
    else:
        content[middle:] = bytes(len(content) - middle) if damage == "zeros" else b""
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{folder}/1\.png'"):
        read(records)
