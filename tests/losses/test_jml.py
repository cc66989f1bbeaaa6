"""JML against sums over single pixels."""

import pytest
import reference
import torch

from fakd.losses.jml import JML
from fakd.structures import LossInputs, SegOutput, SegSpec

SPEC = SegSpec(4, 6)


def jml(student, teacher, labels, **options):
    n, _, h, w = student.shape
    empty = student.new_zeros(4, 6)
    outputs = [SegOutput(x, x.new_zeros(n, 6, h, w), empty) for x in (student, teacher)]
    return JML(JML.Config(**options), SPEC, SPEC)(LossInputs(*outputs, labels, labels != reference.VOID))


def case():
    student = reference.field(2, 4, 3, 5, 1.0).requires_grad_()
    labels = torch.arange(30).view(2, 3, 5) % 3  # class 3 is nowhere
    labels[0, 0] = reference.VOID
    return student, reference.field(2, 4, 3, 5, 2.0), labels


def pixels(student, teacher, labels, tau):
    """(q, p, label) of every labelled pixel."""
    scores = zip(*(x.detach().movedim(1, -1).flatten(0, 2) / tau for x in (student, teacher)), strict=True)
    for (z, t), y in zip(scores, labels.flatten().tolist(), strict=True):
        if y != reference.VOID:
            yield reference.softmax(z.tolist()), reference.softmax(t.tolist()), y


def by_hand(student, teacher, labels, tau=1.0, share=0.5, smooth=1.0, classes=range(4)):
    values = []
    for c in classes:
        hits = misses = false = 0.0
        for q, p, label in pixels(student, teacher, labels, tau):
            y = share * (label == c) + (1 - share) * p[c]
            # |q| + |y| - |q - y| is twice the smaller of the two.
            hits += min(q[c], y)
            false += q[c] - min(q[c], y)
            misses += y - min(q[c], y)
        values.append(1 - (hits + smooth) / (hits + false + misses + smooth))
    return sum(values) / len(values)


@pytest.mark.parametrize("tau, share, smooth", [(1.0, 0.5, 1.0), (4.0, 0.2, 1e-3), (1.0, 1.0, 1.0)])
def test_value_by_hand(tau, share, smooth):
    student, teacher, labels = case()
    value = jml(student, teacher, labels, tau=tau, label_share=share, smooth=smooth)
    assert value.item() == pytest.approx(by_hand(student, teacher, labels, tau, share, smooth), rel=1e-9)


def test_golden_value():
    assert jml(*case()).item() == pytest.approx(0.559927046783, abs=1e-12)


def test_classes_of_the_labels_only():
    student, teacher, labels = case()
    value = jml(student, teacher, labels, classes="present")
    assert value.item() == pytest.approx(by_hand(student, teacher, labels, classes=range(3)), rel=1e-9)


def test_with_hard_labels_it_is_one_minus_the_iou_of_hard_predictions():
    _, teacher, labels = case()
    predicted = torch.arange(30).view(2, 3, 5) // 3 % 4
    student = 1e4 * torch.nn.functional.one_hot(predicted, 4).movedim(-1, 1).double()
    valid, ious = labels != reference.VOID, []
    for c in range(4):
        a, b = (predicted == c) & valid, (labels == c) & valid
        ious.append((a & b).sum() / (a | b).sum())
    value = jml(student, teacher, labels, label_share=1.0, smooth=1e-12)
    assert value.item() == pytest.approx(1 - sum(ious).item() / 4, abs=1e-6)


def test_it_is_least_where_the_student_is_the_soft_target():
    """The property that the product form of soft Jaccard lacks."""
    _, teacher, labels = case()
    student = teacher.clone().requires_grad_()
    assert jml(student, teacher, labels, label_share=0.0).item() == pytest.approx(0, abs=1e-12)
    for seed in range(5):
        torch.manual_seed(seed)
        other = teacher + 0.01 * torch.randn_like(teacher)
        assert jml(other, teacher, labels, label_share=0.0) > 0


def test_gradient_is_that_of_finite_differences():
    student, teacher, labels = case()
    assert torch.autograd.gradcheck(lambda x: jml(x, teacher, labels), student, fast_mode=True)
