"""Images decoded once: the same samples, and never those of files that have changed."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from fakd.data import SemSegMapper
from fakd.data.augmentations import Pad, RandomScale, RandomScaledCrop
from fakd.data.decoded import DecodedFiles, write_decoded


@pytest.fixture
def records(tmp_path):
    random = np.random.RandomState(0)
    found = []
    for i, (height, width) in enumerate([(40, 60), (33, 47), (64, 32)]):
        image, label = tmp_path / f"{i}.png", tmp_path / f"{i}_label.png"
        Image.fromarray(random.randint(0, 256, (height, width, 3)).astype(np.uint8)).save(image)
        Image.fromarray(random.choice([0, 1, 2, 255], (height, width)).astype(np.uint8)).save(label)
        found.append({"file_name": str(image), "sem_seg_file_name": str(label)})
    found.append({"file_name": found[0]["file_name"]})  # the same image without its label
    return found


def mapper(decoded, image_format="RGB"):
    return SemSegMapper(
        augmentations=[Pad((32, 32), 116, 255)],
        crop=RandomScaledCrop(RandomScale(0.5, 2.0), (32, 32)),
        image_format=image_format,
        num_classes=3,
        ignore_label=255,
        ignore_value=255,
        id_map=None,
        is_train=True,
        decoded=decoded,
    )


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_samples_are_those_of_the_files(records, tmp_path, image_format):
    total = write_decoded(records, tmp_path / "decoded")
    assert total == 4 * (40 * 60 + 33 * 47 + 64 * 32)
    from_files, from_bytes = (
        mapper(each, image_format) for each in (None, DecodedFiles(tmp_path / "decoded"))
    )
    for seed, record in enumerate(records * 3):
        samples = []
        for each in (from_files, from_bytes):
            np.random.seed(seed)
            samples.append(each(record))
        assert all(torch.equal(samples[0][key], samples[1][key]) for key in ("image", "sem_seg"))


def test_a_picture_that_its_exif_data_turns_is_turned(tmp_path):
    path, exif = tmp_path / "a.png", Image.Exif()
    exif[274] = 6
    Image.fromarray(np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)).save(path, exif=exif)
    write_decoded([{"file_name": str(path)}], tmp_path / "decoded")
    assert DecodedFiles(tmp_path / "decoded").read(str(path)).shape == (4, 6, 3)


def test_a_file_that_has_changed_is_refused(records, tmp_path):
    write_decoded(records, tmp_path / "decoded")
    decoded, path = DecodedFiles(tmp_path / "decoded"), records[0]["file_name"]
    os.utime(path, (1, 1))
    with pytest.raises(ValueError, match=r"0.png' has changed since.*fakd data decode"):
        decoded.read(path)


def test_what_is_not_there_is_refused(records, tmp_path):
    write_decoded(records[:1], tmp_path / "decoded")
    with pytest.raises(ValueError, match="does not hold .*1.png"):
        mapper(DecodedFiles(tmp_path / "decoded"))(records[1])
    (tmp_path / "decoded" / "index.json").unlink()  # as if the writer had been stopped
    with pytest.raises(FileNotFoundError, match="DATALOADER.DECODED: no decoded dataset"):
        DecodedFiles(tmp_path / "decoded")


def test_who_reads_while_the_folder_is_written_anew_gets_the_same_bytes_or_none(records, tmp_path):
    folder = tmp_path / "decoded"
    write_decoded(records, folder)
    decoded, path = DecodedFiles(folder), records[0]["file_name"]
    before = decoded.read(path).copy()
    write_decoded(records, folder)
    assert (decoded.read(path) == before).all()
    (folder / "pixels.5.5.partial").write_bytes(b"of a process that was killed")
    write_decoded(records[::-1], folder)
    with pytest.raises(ValueError, match=r"pixels_\w+.bin' is gone.*decoded into its folder.*--resume"):
        decoded.read(path)
    assert (DecodedFiles(folder).read(path) == before).all()
    assert len(list(folder.iterdir())) == 2  # the index and the newest pixels


def test_a_folder_of_the_old_form_is_read_and_a_cut_one_is_named(records, tmp_path):
    folder = tmp_path / "decoded"
    write_decoded(records, folder)
    index = json.loads((folder / "index.json").read_text())
    old = (folder / index.pop("pixels")).rename(folder / "pixels.bin")
    (folder / "index.json").write_text(json.dumps(index))
    decoded, path = DecodedFiles(folder), records[0]["file_name"]
    assert (decoded.read(path) == np.asarray(Image.open(path))).all()
    os.truncate(old, 10)
    with pytest.raises(ValueError, match=r"pixels.bin' is damaged.*fakd data decode"):
        decoded.read(path)


def test_ids_that_fit_no_byte_are_refused(tmp_path):
    label, image = tmp_path / "label.png", tmp_path / "image.png"
    Image.fromarray(np.full((4, 4), 300, np.uint16)).save(label)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(image)
    with pytest.raises(ValueError, match="label.png' holds ids above 255"):
        write_decoded([{"file_name": str(image), "sem_seg_file_name": str(label)}], tmp_path / "decoded")
