"""Confusion matrix against counting by hand."""

import pytest
import torch

from fakd.functional.confusion import confusion_matrix, metrics_from_confusion


def test_counts_by_hand():
    label = torch.tensor([[0, 0, 1], [1, 2, 255]])
    prediction = torch.tensor([[0, 1, 1], [1, 0, 2]])
    matrix = confusion_matrix(prediction, label, num_classes=3, ignore_value=255)
    assert matrix.dtype == torch.int64
    assert matrix.tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]


def test_batch_is_the_sum_of_its_images_whatever_the_integer_type():
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 6, (4, 9, 7), generator=generator)  # 5 is void
    prediction = torch.randint(0, 5, (4, 9, 7), generator=generator)
    whole = confusion_matrix(prediction, label, 5, 5)
    parts = sum(
        confusion_matrix(p.int(), t.to(torch.uint8), 5, 5) for p, t in zip(prediction, label, strict=True)
    )
    naive = torch.tensor(
        [[int(((label == r) & (prediction == c)).sum()) for c in range(5)] for r in range(5)]
    )
    assert torch.equal(whole, naive)
    assert torch.equal(parts, naive)


@pytest.mark.parametrize("bad_label", [3, 7, 254])
def test_label_outside_the_classes_is_refused(bad_label):
    label = torch.tensor([[0, bad_label]])
    with pytest.raises(ValueError, match="outside the 3 classes"):
        confusion_matrix(torch.zeros_like(label), label, 3, 255)


def test_shape_mismatch_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        confusion_matrix(torch.zeros(2, 3).long(), torch.zeros(3, 2).long(), 3, 255)


def test_metrics_by_hand():
    # class 2 is never labelled but twice predicted; class 3 appears nowhere
    matrix = torch.tensor([[6, 2, 2, 0], [0, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    metrics = metrics_from_confusion(matrix)
    torch.testing.assert_close(metrics["IoU"][:2], torch.tensor([6 / 10, 4 / 6]).double())
    torch.testing.assert_close(metrics["Acc"][:2], torch.tensor([0.6, 1.0]).double())
    assert metrics["IoU"][2:].isnan().all() and metrics["Acc"][2:].isnan().all()
    assert metrics["mIoU"].item() == pytest.approx((6 / 10 + 4 / 6) / 2)
    assert metrics["mAcc"].item() == pytest.approx(0.8)
    assert metrics["aAcc"].item() == pytest.approx(10 / 14)
