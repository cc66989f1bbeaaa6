import numpy as np
import pytest
from PIL import Image

from fakd.data import read_label

from .conftest import write_png

IDS = np.array([[0, 3, 11], [255, 7, 1]], np.uint8)


def _save(picture: Image.Image, tmp_path) -> str:
    path = str(tmp_path / "label.png")
    picture.save(path)
    return path


def test_grey_and_palette_pictures_give_their_raw_ids(tmp_path):
    grey = Image.fromarray(IDS)
    palette = Image.fromarray(IDS)
    palette.putpalette([(7 * i) % 256 for i in range(768)])
    assert palette.mode == "P"
    for picture in (grey, palette):
        label = read_label(_save(picture, tmp_path))
        assert label.dtype == np.int64
        np.testing.assert_array_equal(label, IDS)


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_ids_of_few_bits_are_not_stretched(tmp_path, bits):
    ids = np.arange(16, dtype=np.uint8).reshape(2, 8) % 2**bits
    rows = [
        bytes(sum(int(x) << 8 - bits * (i + 1) for i, x in enumerate(part)) for part in parts)
        for parts in (row.reshape(-1, 8 // bits) for row in ids)
    ]
    path = write_png(tmp_path / "label.png", 8, bits, 0, rows)
    np.testing.assert_array_equal(read_label(path), ids)


def test_sixteen_bit_ids_survive(tmp_path):
    ids = np.array([[0, 700], [65535, 256]], np.uint16)
    label = read_label(_save(Image.fromarray(ids), tmp_path), ignore_label=65535, ignore_value=1000)
    np.testing.assert_array_equal(label, [[0, 700], [1000, 256]])


def test_the_void_id_of_the_file_becomes_the_one_asked_for(tmp_path):
    path = _save(Image.fromarray(IDS), tmp_path)
    np.testing.assert_array_equal(read_label(path, ignore_label=11), [[0, 3, 255], [255, 7, 1]])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "1"])
def test_other_modes_are_refused_by_name(tmp_path, mode):
    path = _save(Image.new(mode, (4, 4)), tmp_path)
    with pytest.raises(ValueError, match=rf"label\.png' has mode '{mode}'"):
        read_label(path)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("jpeg", "is a JPEG, which loses ids by compression.* as png"),
        ("webp", "need a single-channel picture"),
    ],
)
def test_formats_that_change_ids_are_refused(tmp_path, kind, error):
    path = str(tmp_path / "label.png")  # whatever its name says
    Image.fromarray(IDS).save(path, format=kind)
    with pytest.raises(ValueError, match=rf"label\.png' .*{error}"):
        read_label(path)


@pytest.mark.parametrize("content", [None, b"", b"no picture", "truncated"])
def test_unreadable_files_are_named(tmp_path, content):
    path = tmp_path / "label.png"
    if content == "truncated":
        _save(Image.fromarray(np.random.RandomState(0).randint(0, 9, (64, 64)).astype(np.uint8)), tmp_path)
        content = path.read_bytes()[:-200]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"Cannot read the label file '.*label\.png'"):
        read_label(str(path))
