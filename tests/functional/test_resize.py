"""Labels keep their ids, teacher maps follow the student's grid, mismatches are named."""

import pytest
import torch

from fakd.functional.resize import aligned_logits, resize_labels, resize_like


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
@pytest.mark.parametrize("size", [(5, 7), (1, 1), (40, 3), (33, 65)])
def test_resized_labels_contain_only_original_ids(mode, size):
    ids = torch.tensor([0, 3, 254, 255, 2**24 - 1])
    labels = ids[torch.randint(0, 5, (2, 33, 65), generator=torch.Generator().manual_seed(0))]
    small = resize_labels(labels, size, mode)
    assert small.dtype == torch.int64 and small.shape == (2, *size)
    assert set(small.unique().tolist()) <= set(ids.tolist())


@pytest.mark.parametrize(
    "full, small, mode, picked",
    [
        (16, 4, "nearest", [0, 4, 8, 12]),
        (16, 4, "nearest-exact", [2, 6, 10, 14]),
        (513, 65, "nearest", [i * 513 // 65 for i in range(65)]),
    ],
)
def test_which_pixels_are_picked(full, small, mode, picked):
    labels = torch.arange(full).expand(1, full, full)
    assert resize_labels(labels, (small, small), mode)[0, 0].tolist() == picked


def test_maps_of_equal_size_are_left_alone():
    x, labels = torch.randn(2, 3, 4, 5), torch.zeros(2, 4, 5).long()
    assert resize_like(x, torch.empty(2, 7, 4, 5)) is x
    assert resize_labels(labels, (4, 5)) is labels


def test_teacher_is_resized_to_the_student_without_gradient():
    student = torch.randn(2, 3, 4, 5, requires_grad=True)
    teacher = torch.full((2, 3, 9, 11), 2.5, requires_grad=True)
    a, b = aligned_logits(student, teacher)
    assert a.shape == b.shape == (2, 3, 20)
    assert torch.equal(b, torch.full((2, 3, 20), 2.5))
    assert a.requires_grad and not b.requires_grad
    # Pixels keep their order.
    assert torch.equal(a.view(2, 3, 4, 5), student)


@pytest.mark.parametrize("shape", [(2, 4, 4, 5), (3, 3, 4, 5), (1, 3, 4, 5)])
def test_other_classes_or_images_are_refused_not_broadcast(shape):
    with pytest.raises(ValueError, match="NUM_CLASSES"):
        aligned_logits(torch.randn(2, 3, 4, 5), torch.randn(shape))
