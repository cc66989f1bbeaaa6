"""SegEvaluator against detectron2's own evaluator, and over two processes against one."""

import math

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from detectron2.utils import comm
from PIL import Image
from ranks import on_ranks

from fakd.evaluation import SegEvaluator

CLASSES = ["sky", "road", "car", "pole", "tram"]
VOID = 255
ABSENT = 3  # never labelled but sometimes predicted; class 4 is neither
NUM_IMAGES = 5


def register(folder, name):
    """Register a dataset whose labels lie in ``folder``."""
    records = [
        {"file_name": f"{i}.jpg", "sem_seg_file_name": str(folder / f"{i}.png")} for i in range(NUM_IMAGES)
    ]
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(stuff_classes=CLASSES, ignore_label=VOID, evaluator_type="sem_seg")


def scores(index):
    """(K, 12, 17) class scores of image ``index`` that never choose class 4."""
    generator = torch.Generator().manual_seed(index)
    result = torch.randn(len(CLASSES), 12, 17, generator=generator)
    result[4] = -100
    return result


@pytest.fixture
def dataset(tmp_path, request):
    name = f"evaluator_{request.node.name}"
    rng = np.random.default_rng(0)
    for i in range(NUM_IMAGES):
        label = rng.choice([0, 1, 2, VOID], size=(12, 17), p=[0.5, 0.3, 0.1, 0.1]).astype(np.uint8)
        Image.fromarray(label).save(tmp_path / f"{i}.png")
    register(tmp_path, name)
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def feed(evaluator, indices=range(NUM_IMAGES)):
    evaluator.reset()
    for i in indices:
        evaluator.process([{"file_name": f"{i}.jpg"}], [{"sem_seg": scores(i)}])
    return evaluator.evaluate()


def test_equals_detectron2(dataset):
    def load(path, dtype):
        return np.asarray(Image.open(path)).astype(dtype)

    ours = feed(SegEvaluator(dataset))["sem_seg"]
    theirs = feed(SemSegEvaluator(dataset, distributed=False, sem_seg_loading_fn=load))["sem_seg"]
    renamed = {"mIoU": "mIoU", "mAcc": "mACC", "aAcc": "pACC"}
    renamed |= {f"IoU-{c}": f"IoU-{c}" for c in CLASSES} | {f"Acc-{c}": f"ACC-{c}" for c in CLASSES}
    assert ours == pytest.approx({key: theirs[name] for key, name in renamed.items()}, nan_ok=True, rel=1e-12)
    assert math.isnan(ours[f"IoU-{CLASSES[ABSENT]}"]) and not math.isnan(ours["IoU-car"])


def test_batches_and_repeated_runs_change_nothing(dataset):
    evaluator = SegEvaluator(dataset)
    one_by_one = feed(evaluator)
    first = evaluator.confusion
    evaluator.reset()
    evaluator.process(
        [{"file_name": f"{i}.jpg"} for i in range(NUM_IMAGES)],
        [{"sem_seg": scores(i)} for i in range(NUM_IMAGES)],
    )
    assert evaluator.evaluate()["sem_seg"] == pytest.approx(one_by_one["sem_seg"], nan_ok=True)
    assert torch.equal(evaluator.confusion, first)


def _rank(folder, out):
    rank = comm.get_rank()
    register(folder, "evaluator_ranks")
    evaluator = SegEvaluator("evaluator_ranks")
    results = feed(evaluator, indices=range(rank, NUM_IMAGES, 2))
    torch.save((results, evaluator.confusion), f"{out}.{rank}")


def test_two_processes_equal_one(dataset, tmp_path):
    evaluator = SegEvaluator(dataset)
    expected = feed(evaluator)
    on_ranks(_rank, 2, tmp_path, str(tmp_path / "out"))
    results, confusion = torch.load(tmp_path / "out.0", weights_only=False)
    assert results["sem_seg"] == pytest.approx(expected["sem_seg"], nan_ok=True)
    assert torch.equal(confusion, evaluator.confusion)
    assert torch.load(tmp_path / "out.1", weights_only=False)[0] == {}


def test_size_mismatch_names_the_label_file(dataset):
    evaluator = SegEvaluator(dataset)
    with pytest.raises(ValueError, match=r"0\.jpg with its label .*0\.png.*\(5, 4\).*\(12, 17\)"):
        evaluator.process([{"file_name": "0.jpg"}], [{"sem_seg": torch.zeros(len(CLASSES), 5, 4)}])


def test_label_outside_the_classes_names_the_file(dataset, tmp_path):
    Image.fromarray(np.full((12, 17), 9, np.uint8)).save(tmp_path / "2.png")
    with pytest.raises(ValueError, match=r"2\.png"):
        feed(SegEvaluator(dataset))


def test_nothing_evaluated_is_an_error(dataset):
    with pytest.raises(ValueError, match=f"no labelled pixel of {dataset}"):
        SegEvaluator(dataset).evaluate()
