"""Rows of one class each hold every pixel once, whatever the labels."""

import pytest
import torch

from fakd.functional.segments import class_counts, pack_by_class

LABELS = {
    "mixed": torch.tensor([2, 0, 2, 2, 4, 0, 2, 2, 2]),
    "one class": torch.full((9,), 3),
    "one pixel": torch.tensor([4]),
    "no pixel": torch.tensor([], dtype=torch.long),
    "exactly full rows": torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]),
}


@pytest.mark.parametrize("block", [1, 4, 64])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_every_pixel_is_in_one_row_of_its_class(labels, block):
    index, row_class = pack_by_class(labels, 5, block)
    size = len(labels)
    assert index.shape == (size // block + 5, block)
    assert row_class.shape == (len(index),)
    assert row_class.min() >= 0 and row_class.max() < 5
    places = index < size
    assert index[places].sort().values.tolist() == list(range(size))
    assert (index[~places] == size).all()
    assert torch.equal(labels[index[places]], row_class[:, None].expand_as(index)[places])
    # Padding only ever ends a row.
    assert (places[:, 1:] <= places[:, :-1]).all()


def test_the_order_within_a_class_is_kept():
    index, row_class = pack_by_class(LABELS["mixed"], 5, 4)
    assert index[row_class == 2].flatten().tolist()[:6] == [0, 2, 3, 6, 7, 8]


def test_counts():
    labels = LABELS["mixed"]
    assert torch.equal(class_counts(labels, 5), torch.bincount(labels, minlength=5))
    assert class_counts(labels, 5).dtype == torch.int64
