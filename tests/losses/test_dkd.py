"""DKD against its two terms, one pixel at a time."""

import math

import pytest
import reference
import torch

from fakd.losses.dkd import DKD
from fakd.structures import LossInputs, SegOutput, SegSpec

SPEC = SegSpec(4, 6)


def dkd(student, teacher, labels, **options):
    n, _, h, w = student.shape
    empty = student.new_zeros(4, 6)
    outputs = [SegOutput(x, x.new_zeros(n, 6, h, w), empty) for x in (student, teacher)]
    return DKD(DKD.Config(**options), SPEC, SPEC)(LossInputs(*outputs, labels, labels != reference.VOID))


def case():
    student = torch.randn(2, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 4, (2, 3, 5))
    labels[0, 0] = reference.VOID
    return student, reference.field(2, 4, 3, 5, 2.0), labels


def by_hand(student, teacher, labels, tau, alpha, beta):
    values = []
    scores = zip(*(x.detach().movedim(1, -1).flatten(0, 2) / tau for x in (student, teacher)), strict=True)
    for (z, t), y in zip(scores, labels.flatten().tolist(), strict=True):
        if y == reference.VOID:
            continue
        q, p = (reference.softmax(x.tolist())[y] for x in (z, t))
        sure = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        rest = reference.kl(*([v for c, v in enumerate(x.tolist()) if c != y] for x in (t, z)))
        values.append(alpha * sure + beta * rest)
    return tau**2 * sum(values) / len(values)


@pytest.mark.parametrize("tau, alpha, beta", [(1.0, 1.0, 0.5), (4.0, 1.0, 8.0), (2.0, 0.0, 1.0)])
def test_value_by_hand(tau, alpha, beta):
    student, teacher, labels = case()
    value = dkd(student, teacher, labels, tau=tau, alpha=alpha, beta=beta)
    assert value.item() == pytest.approx(by_hand(student, teacher, labels, tau, alpha, beta), rel=1e-8)


def test_gradient_is_that_of_finite_differences():
    student, teacher, labels = case()
    assert torch.autograd.gradcheck(lambda x: dkd(x, teacher, labels, tau=2.0), student, fast_mode=True)


def test_it_is_pd_where_the_teacher_is_as_sure_everywhere():
    """PD = b-term + (1 - p_y) r-term, so with one p_y for all pixels beta = 1 - p_y makes PD."""
    student, teacher, labels = case()
    labels = labels.clamp(max=3)
    rest = teacher.scatter(1, labels[:, None], -math.inf).logsumexp(1, keepdim=True)
    teacher = teacher.scatter(1, labels[:, None], rest + math.log(3.0))  # p_y = 3/4
    wanted = reference.pd(student.detach(), teacher, 1.0)
    assert dkd(student, teacher, labels, beta=0.25).item() == pytest.approx(wanted, rel=1e-8)


def test_a_certain_teacher_and_student_are_finite():
    student, teacher, labels = (x.clone() for x in case())
    student, teacher = (300 * x.detach().float() for x in (student, teacher))
    student.requires_grad_()
    value = dkd(student, teacher, labels)
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()


def test_a_void_batch_has_a_gradient_of_zero():
    student, teacher, labels = case()
    value = dkd(student, teacher, torch.full_like(labels, reference.VOID))
    value.backward()
    assert value.item() == 0 and not student.grad.any()
