"""Images of 16 bits and of other than three channels, from files to what the network is given."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import yaml
from detectron2.data import DatasetCatalog
from PIL import Image

from fakd.config import load_config
from fakd.config.checks import check_values
from fakd.data import SemSegMapper
from fakd.data.bands import array_size, is_array, read_array, read_shown
from fakd.data.check import check_dataset
from fakd.data.images import decode, read_image
from fakd.modeling.backbones.pretrained import load_pretrained
from fakd.modeling.build import build_segmentor

from .conftest import write_png

FIVE = np.random.default_rng(0).integers(0, 4000, (40, 56, 5), np.uint16)


def written(folder, kind):
    path = str(folder / f"image.{kind}")
    if kind == "npy":
        np.save(path, FIVE)
    else:
        planar = np.moveaxis(FIVE, 2, 0) if kind == "tif" else FIVE
        axes = "CYX" if kind == "tif" else "YXC"
        tifffile.imwrite(path, planar, photometric="minisblack", metadata={"axes": axes})
    return path


@pytest.fixture
def described(tmp_path):
    """The yaml of a dataset of five channels: two npy files and their labels."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for i in range(2):
        np.save(tmp_path / "images" / f"{i}.npy", FIVE + i)
        Image.fromarray((FIVE[..., 0] > 2000).astype(np.uint8)).save(tmp_path / "labels" / f"{i}.png")
    split = {"images": "images", "labels": "labels", "image_suffix": ".npy"}
    content = {"name": tmp_path.name, "classes": ["low", "high"], "channels": 5, "splits": {"train": split}}
    (tmp_path / "data.yaml").write_text(yaml.dump(content))
    return tmp_path


def config(folder, *opts):
    name = f"{folder.name}_train"
    data = ["DATASETS.CUSTOM", str([str(folder / "data.yaml")]), "DATASETS.TRAIN", f"('{name}',)"]
    data += ["DATASETS.TEST", f"('{name}',)", "INPUT.CROP.SIZE", "(32, 48)", "MODEL.BACKBONE.WIDTH", "0.125"]
    numbers = ["MODEL.PIXEL_MEAN", "[2000.0] * 5", "MODEL.PIXEL_STD", "(1000.0,) * 5"]
    numbers[1], numbers[3] = str([2000.0, 1000.0, 0.0, 0.0, 0.0]), str([1000.0] * 5)
    return load_config("", [*data, *numbers, "MODEL.DEVICE", "cpu", *opts])


@pytest.mark.parametrize("kind", ["npy", "tif", "tiff"])
def test_an_array_is_read_as_it_stands_in_any_order_of_its_axes(tmp_path, kind):
    path = written(tmp_path, kind)
    found = read_array(path, 5)
    assert found.dtype == np.float32 and np.array_equal(found, FIVE)
    assert array_size(path) == (56, 40)
    shown = read_shown(path)
    assert shown.shape == (40, 56, 3) and shown.dtype == np.uint8 and (shown.min(), shown.max()) == (0, 255)
    with pytest.raises(ValueError, match=r"has 5 channels, but INPUT.CHANNELS is 4.*PIXEL_MEAN"):
        read_array(path, 4)


def test_a_grey_png_of_sixteen_bits_is_one_channel(tmp_path):
    Image.fromarray(FIVE[..., 1]).save(tmp_path / "image.png")
    assert np.array_equal(read_array(str(tmp_path / "image.png"), 1), FIVE[..., 1:2])


DEEP = np.random.default_rng(1).integers(0, 65536, (40, 56, 4), np.uint16)


def png_of_16_bits(path, values, kind):
    """Of a colour type: 2 RGB, 4 grey and transparency, 6 RGBA."""
    return write_png(path, values.shape[1], 16, kind, [row.astype(">u2").tobytes() for row in values])


@pytest.mark.parametrize(("kind", "channels", "asked"), [(2, 3, 3), (6, 4, 4), (6, 4, 3), (4, 2, 2)])
def test_a_png_of_16_bits_in_colour_keeps_all_of_them(tmp_path, kind, channels, asked):
    path = png_of_16_bits(tmp_path / "image.png", DEEP[..., :channels], kind)
    assert is_array(path, asked) and array_size(path) == (56, 40)
    found = read_array(path, asked)
    assert found.dtype == np.float32 and np.array_equal(found, DEEP[..., :asked])
    assert read_shown(path).shape == (40, 56, 3)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_grey_picture_is_turned_as_one_in_colour_is(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    values = np.arange(6, dtype=np.uint8).reshape(2, 3)
    Image.fromarray(values).save(tmp_path / "grey.png", exif=exif)
    grey = read_array(str(tmp_path / "grey.png"), 1)
    np.testing.assert_array_equal(grey[..., 0], read_image(str(tmp_path / "grey.png"))[..., 0])
    assert array_size(str(tmp_path / "grey.png")) == grey.shape[1::-1]


def test_a_damaged_png_of_16_bits_is_named(tmp_path):
    path = tmp_path / "image.png"
    content = bytearray(Path(png_of_16_bits(path, DEEP[..., :3], 2)).read_bytes())
    content[5000] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"image\.png': .*damaged"):
        read_array(str(path), 3)


def test_a_tif_of_16_bits_in_colour_is_no_picture_of_bytes(tmp_path):
    path = str(tmp_path / "image.tif")
    tifffile.imwrite(path, DEEP[..., :3], photometric="rgb")
    assert is_array(path) and np.array_equal(read_array(path, 3), DEEP[..., :3])
    tifffile.imwrite(path, (DEEP[..., :3] >> 8).astype(np.uint8), photometric="rgb")
    assert not is_array(path)


def test_an_opened_picture_of_16_bits_is_not_cut(tmp_path):
    path = png_of_16_bits(tmp_path / "image.png", DEEP[..., :3], 2)
    with (
        Image.open(path) as picture,
        pytest.raises(OSError, match="16 bits a channel, of which Pillow keeps"),
    ):
        decode(picture)


@pytest.mark.parametrize(
    ("array", "error"),
    [
        (np.full((4, 4), np.nan), "not finite"),
        (np.zeros((2, 4, 4, 3)), r"is \(2, 4, 4, 3\) of float64, but must be"),
        (np.zeros((4, 4), bool), "of bool"),
        (np.array([[{}]]), "allow_pickle"),
    ],
)
def test_what_is_no_image_is_refused_by_name(tmp_path, array, error):
    np.save(tmp_path / "image.npy", array)
    with pytest.raises(ValueError, match=rf"image\.npy'.*{error}"):
        read_array(str(tmp_path / "image.npy"))


def test_the_mapper_cuts_and_pads_every_channel(described):
    cfg = config(described, "INPUT.SCALE_RANGE", "(1.0, 1.0)", "INPUT.CROP.SIZE", "(64, 64)")
    assert cfg.INPUT.CHANNELS == 5
    check_values(cfg)
    cfg.INPUT.RANDOM_FLIP = "none"
    record = DatasetCatalog.get(cfg.DATASETS.TRAIN[0])[0]
    sample = SemSegMapper(cfg)(record)
    image = sample["image"]
    assert image.dtype == torch.float32 and image.shape == (5, 64, 64)
    assert np.array_equal(image[:, :40, :56], FIVE.transpose(2, 0, 1))
    assert image[:, 40:].amax((1, 2)).tolist() == [2000.0, 1000.0, 0.0, 0.0, 0.0]
    assert torch.equal(sample["sem_seg"][:40, :56], (image[0, :40, :56] > 2000).long())
    assert np.array_equal(SemSegMapper(cfg, is_train=False)(record)["image"], FIVE.transpose(2, 0, 1))


def test_a_channel_is_resized_as_a_picture_of_its_own_in_training_and_test(described):
    cfg = config(described, "INPUT.SCALE_RANGE", "(1.0, 1.0)", "INPUT.CROP.SIZE", "(20, 28)")
    cfg.INPUT.RANDOM_FLIP, cfg.INPUT.BASE_SIZE = "none", (28, 20)
    record = DatasetCatalog.get(cfg.DATASETS.TRAIN[0])[0]
    each = [Image.fromarray(FIVE[..., i].astype(np.float32)).resize((28, 20), 2) for i in range(5)]
    for is_train in (True, False):
        image = SemSegMapper(cfg, is_train=is_train)(record)["image"].numpy()
        assert np.allclose(image, np.stack([np.asarray(band) for band in each]))


def test_a_dataset_of_five_channels_is_checked_and_drawn(described):
    cfg = config(described)
    found = check_dataset(cfg.DATASETS.TRAIN[0], described / "sheet.png", workers=1)
    assert found.images == 2 and found.sizes == ((40, 56), (40, 56))
    np.save(described / "images" / "1.npy", FIVE[..., :4])
    with pytest.raises(ValueError, match=r"1\.npy' has 4 channels"):
        check_dataset(cfg.DATASETS.TRAIN[0], workers=1)


@pytest.mark.parametrize(
    ("opts", "key"),
    [
        (["MODEL.PIXEL_STD", "(1.0, 1.0, 1.0)"], "MODEL.PIXEL_STD is .* must be 5 values"),
        (["INPUT.FORMAT", "BGR"], "INPUT.FORMAT BGR"),
        (["INPUT.PHOTOMETRIC", "True"], "INPUT.PHOTOMETRIC"),
    ],
)
def test_keys_of_three_channels_are_refused_for_five(described, opts, key):
    with pytest.raises(ValueError, match=key):
        check_values(config(described, *opts))


def test_the_first_convolution_is_adapted_as_timm_adapts_it(described, tmp_path):
    timm = pytest.importorskip("timm")
    cfg = config(described)
    cfg.MODEL.BACKBONE.WIDTH = 1.0
    three = timm.create_model("resnet18")
    torch.save(three.state_dict(), tmp_path / "resnet18.pth")
    network = build_segmentor(cfg)
    load_pretrained(network.backbone.net, str(tmp_path / "resnet18.pth"))
    first = network.backbone.net.conv1.weight
    assert first.shape == (64, 5, 7, 7)
    assert torch.allclose(first[:, :3], three.conv1.weight * 3 / 5)
    assert torch.allclose(first[:, 3:], three.conv1.weight[:, :2] * 3 / 5)
    assert torch.equal(network.backbone.net.layer1[0].conv1.weight, three.layer1[0].conv1.weight)


def test_five_channels_from_training_to_a_prediction_and_an_exported_file(described):
    """A run of two iterations; its student is asked for a file, as it is and exported."""
    from fakd.deploy.student import export_student
    from fakd.engine import run
    from fakd.predict import Predictor
    from fakd.predict.demo import find_inputs
    from fakd.predict.pseudo_label import write_pseudo_labels

    opts = ["OUTPUT_DIR", str(described / "run"), "SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2"]
    cfg = config(described, *opts, "DATALOADER.NUM_WORKERS", "0")
    run(cfg)
    metrics = json.loads((described / "run" / "result.json").read_text())["metrics"]
    assert 0 <= metrics["mIoU"] <= 100
    predictor = Predictor(described / "run", device="cpu")
    assert predictor.channels == 5
    ids = predictor(described / "images" / "0.npy")
    assert ids.shape == (40, 56) and np.array_equal(ids, predictor(FIVE))
    pictures, _ = find_inputs([str(described / "images")])
    pseudo = write_pseudo_labels(predictor, pictures, described / f"{described.name}_pseudo", 0.0)
    assert yaml.safe_load(pseudo.description.read_text())["channels"] == 5
    weights, file = str(described / "run" / "model_final.pth"), described / "student.ts"
    export_student(cfg, weights, file, file_format="torchscript", size=(40, 56))
    assert np.array_equal(Predictor(file)(FIVE), ids)
    with pytest.raises(ValueError, match=r"must be \(height, width, 5\)"):
        predictor(FIVE[..., :3])
