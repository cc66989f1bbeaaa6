"""A run labels pictures where it is sure, and what it writes trains a network."""

import re

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from fakd.data.datasets.toyscenes import CLASSES, draw_scene
from fakd.engine import run
from fakd.predict import Predictor
from fakd.predict.pseudo_label import write_pseudo_labels

from .conftest import tiny_config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    run(tiny_config(folder, "SOLVER.MAX_ITER", 20, "SOLVER.BASE_LR", 0.05))
    return folder


@pytest.fixture
def pictures(tmp_path):
    """Three files, one in a folder below, one of another size."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    names = ["a.png", "b.jpg", "sub/c.png"]
    for seed, name in enumerate(names):
        Image.fromarray(draw_scene(seed)[0][: 96 - 8 * seed]).save(tmp_path / "in" / name)
    yield tmp_path / "in"
    for name in [name for name in DatasetCatalog.list() if name.startswith("pseudo")]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def predictor(trained, **options):
    return Predictor(trained, device="cpu", allow_plugins=True, **options)


def read(path):
    with Image.open(path) as label:
        return np.array(label)


def files_of(pictures):
    return [(f, str(f.relative_to(pictures).with_suffix(""))) for f in sorted(pictures.rglob("*.*"))]


def test_labels_are_the_prediction_where_it_is_sure_and_void_elsewhere(trained, pictures, tmp_path):
    network, files = predictor(trained), files_of(pictures)
    answers = [network.predict_with_confidence([path])[0] for path, _ in files]
    classes, _ = zip(*CLASSES, strict=True)
    sureness = np.concatenate([sure.ravel() for _, sure in answers])
    middle, most = np.quantile(sureness, 0.5), answers[0][0].ravel()
    common = int(np.bincount(most).argmax())
    by_class = {classes[common]: float(np.quantile(sureness, 0.8))}
    found = write_pseudo_labels(network, files, tmp_path / "pseudo", middle, by_class, ignore_label=99)
    kept = np.zeros(12, np.int64)
    for (_, name), (labels, sure) in zip(files, answers, strict=True):
        limit = np.where(labels == common, by_class[classes[common]], middle)
        expected = np.where(sure >= limit, labels, 99)
        np.testing.assert_array_equal(read(tmp_path / "pseudo" / "labels" / f"{name}.png"), expected)
        kept += np.bincount(labels[sure >= limit], minlength=12)
    assert 0 < kept.sum() < sureness.size
    np.testing.assert_array_equal(found.kept, kept)
    assert found.predicted.sum() == sureness.size


def test_confidence_is_the_softmax_of_the_scores_or_their_average_over_views(trained, pictures):
    for opts, views in (([], 1), (["TEST.FLIP", "True"], 2)):
        network = predictor(trained, opts=opts)
        ids, sure = network.predict_with_confidence([pictures / "a.png"])[0]
        plain = predictor(trained)._network
        image = torch.from_numpy(read(pictures / "a.png").transpose(2, 0, 1).copy())
        with torch.no_grad():
            total = plain([{"image": image}])[0]["sem_seg"].softmax(0)
            if views == 2:
                total = (total + plain([{"image": image.flip(-1)}])[0]["sem_seg"].softmax(0).flip(-1)) / 2
        np.testing.assert_allclose(sure, total.amax(0), atol=1e-5)
        assert sure.shape == ids.shape == (96, 128)


@pytest.mark.parametrize("keep", [0.3, 1.0])
def test_a_share_is_kept_of_every_class(trained, pictures, tmp_path, keep):
    found = write_pseudo_labels(predictor(trained), files_of(pictures), tmp_path / "pseudo", keep=keep)
    seen = found.predicted > 200
    shares = found.kept[seen] / found.predicted[seen]
    assert seen.any() and (shares >= keep - 1e-9).all() and (shares < keep + 0.1).all()


def test_what_the_command_writes_trains_beside_labelled_pictures(trained, pictures, tmp_path, tool, tiny):
    given = ("--run", trained, "--allow-plugins", "--device", "cpu", "--keep", 0.5, "--batch-size", 2)
    code, text = tool("pseudo_label", pictures, *given, "--output", tmp_path / "pseudo")
    assert code == 0 and "3 labels" in text, text
    assert (tmp_path / "pseudo" / "pseudo.png").is_file()
    both = ["DATASETS.CUSTOM", str((str(tmp_path / "pseudo" / "pseudo.yaml"),))]
    both += ["DATASETS.TRAIN", "('tiny_train','pseudo_train')", "SOLVER.MAX_ITER", 4]
    metrics = tiny(tmp_path / "run", *both)
    assert metrics
    assert MetadataCatalog.get("pseudo_train").stuff_classes == [name for name, _ in CLASSES]


def test_an_exported_file_gives_the_same_labels(trained, pictures, tmp_path, tool):
    given = ("--run", trained, "--allow-plugins", "--format", "torchscript")
    code, text = tool("export_student", *given, "--output", tmp_path / "student.ts")
    assert code == 0, text
    files = files_of(pictures)[:1]  # of the size that the file is for
    own = write_pseudo_labels(predictor(trained), files, tmp_path / "pseudo", keep=0.5)
    other = write_pseudo_labels(Predictor(tmp_path / "student.ts"), files, tmp_path / "pseudo2", keep=0.5)
    assert abs(own.kept - other.kept).sum() < 0.02 * own.kept.sum()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--confidence", 0.9999), "No pixel of 3 pictures is as sure as --confidence 0.9999.*--keep"),
        (("--class-confidence", "skye=0.5"), "no class .skye.*Near: sky"),
        (("--ignore-label", 3), "--ignore-label 3 is the id of one of the 12 classes"),
        (("--ignore-label", 70000), "--ignore-label 70000 is more than 65535"),
        (("--output", "toyscenes"), "toyscenes_train' .* is taken by a dataset of the library.*another name"),
    ],
)
def test_what_cannot_be_done_is_told(trained, pictures, tmp_path, tool, options, told):
    given = ("--run", trained, "--allow-plugins", "--device", "cpu", "--output", tmp_path / "pseudo")
    code, text = tool("pseudo_label", pictures, *given, *options)
    assert code == 1
    assert re.search(told, text), text
    if "--confidence" not in options:
        assert not (tmp_path / "pseudo").exists() and "labels:" not in text  # told before any prediction


def test_odd_names_of_folders_and_pictures_give_a_dataset_that_is_read(trained, pictures, tmp_path):
    (pictures / "a.png").rename(pictures / " a\nb.png")
    found = write_pseudo_labels(predictor(trained), files_of(pictures), tmp_path / ".pseudo (1)", keep=0.5)
    assert found.description.name == "pseudo _1_.yaml" and found.sheet.is_file()
    records = DatasetCatalog.get("pseudo _1__train")
    assert sorted(record["file_name"] for record in records) == sorted(
        str(path) for path, _ in files_of(pictures)
    )
