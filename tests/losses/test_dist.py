"""DIST against NumPy's correlation coefficients."""

import numpy as np
import pytest
import reference
import torch

from fakd.losses.dist import DIST
from fakd.structures import LossInputs, SegOutput, SegSpec

SPEC = SegSpec(4, 6)


def dist(student, teacher, valid, **options):
    n, _, h, w = student.shape
    empty = student.new_zeros(4, 6)
    outputs = [SegOutput(x, x.new_zeros(n, 6, h, w), empty) for x in (student, teacher)]
    labels = torch.zeros(n, h, w, dtype=torch.int64)
    return DIST(DIST.Config(**options), SPEC, SPEC)(LossInputs(*outputs, labels, valid))


def case():
    student = torch.randn(2, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    valid = torch.rand(2, 3, 5) < 0.7
    return student, reference.field(2, 4, 3, 5, 2.0), valid


@pytest.mark.parametrize("masked", [True, False])
def test_value_is_that_of_numpy(masked):
    student, teacher, valid = case()
    keep = (valid if masked else torch.ones_like(valid)).flatten()
    q, p = (
        (x / 2).softmax(1).movedim(1, -1).flatten(0, 2)[keep].detach().numpy() for x in (student, teacher)
    )
    rows = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q, p, strict=True)])
    columns = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q.T, p.T, strict=True)])
    value = dist(student, teacher, valid, tau=2.0, beta=1.5, gamma=0.5, mask_ignored=masked)
    assert value.item() == pytest.approx(4 * (1.5 * rows + 0.5 * columns), rel=1e-8)


def test_one_image_is_enough_for_the_term_within_classes():
    """A correlation over the batch's images instead of its pixels would be constant here."""
    student, teacher, valid = case()
    value = dist(student[:1], teacher[:1], valid[:1], beta=0.0)
    (gradient,) = torch.autograd.grad(value, student)
    assert 0 < value.item() < 2 and gradient[0].abs().max() > 1e-3


def test_relations_alone_count():
    _, teacher, valid = case()
    probability = teacher.softmax(1)
    flatter = (0.3 * probability + 0.7 / 4).log()  # the same, on another scale
    assert dist(flatter, teacher, valid).item() == pytest.approx(0.0, abs=1e-8)


def test_gradient_is_that_of_finite_differences():
    student, teacher, valid = case()
    assert torch.autograd.gradcheck(lambda x: dist(x, teacher, valid), student, fast_mode=True)


def test_a_void_batch_has_a_gradient_of_zero():
    student, teacher, valid = case()
    value = dist(student, teacher, torch.zeros_like(valid))
    value.backward()
    assert value.item() == 0 and not student.grad.any()
