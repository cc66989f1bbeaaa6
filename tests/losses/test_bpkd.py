"""BPKD against sums over single pixels of edge and body."""

import math

import pytest
import reference
import torch
from reference import VOID

from fakd.losses.bpkd import BPKD, edges
from fakd.structures import LossInputs, SegOutput, SegSpec

SPEC = SegSpec(4, 6)


def bpkd(student, teacher, labels, **options):
    n, _, h, w = student.shape
    outputs = [SegOutput(x, x.new_zeros(n, 6, h, w), student.new_zeros(4, 6)) for x in (student, teacher)]
    return BPKD(BPKD.Config(**options), SPEC, SPEC)(LossInputs(*outputs, labels, labels != VOID))


def case():
    student = reference.field(2, 4, 6, 7, 1.0).requires_grad_()
    labels = torch.zeros(2, 6, 7, dtype=torch.int64)
    labels[0, :, 3:], labels[1, 2:4, 2:4], labels[0, 0] = 2, 1, VOID
    return student, reference.field(2, 4, 6, 7, 2.0), labels


def is_edge(labels, n, y, x, radius):
    label, (_, h, w) = labels[n, y, x].item(), labels.shape
    near = [
        labels[n, v, u].item()
        for v in range(max(0, y - radius), min(h, y + radius + 1))
        for u in range(max(0, x - radius), min(w, x + radius + 1))
    ]
    return label != VOID and any(other not in (label, VOID) for other in near)


def by_hand(student, teacher, labels, edge, body, edge_tau, body_tau, radius):
    student, teacher = student.detach(), teacher.detach()
    n, k, h, w = student.shape
    places = [(i, y, x) for i in range(n) for y in range(h) for x in range(w) if labels[i, y, x] != VOID]
    at_edge = [p for p in places if is_edge(labels, *p, radius)]
    inside = [p for p in places if p not in at_edge]
    total = 0.0
    for i, y, x in at_edge:
        q, p = (reference.softmax((z[i, :, y, x] / edge_tau).tolist()) for z in (student, teacher))
        total += (
            edge * edge_tau**2 / len(at_edge) * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        )
    for i in range(n):
        for c in range(k):
            own = [(y, x) for j, y, x in inside if j == i]
            q, p = (
                reference.softmax([(z[i, c, y, x] / body_tau).item() for y, x in own])
                for z in (student, teacher)
            )
            divergence = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
            total += body * body_tau**2 / (n * k) * divergence
    return total


@pytest.mark.parametrize(
    ("edge", "body", "edge_tau", "body_tau", "radius"),
    [(1.0, 3.0, 1.0, 4.0, 1), (1.0, 0.0, 2.0, 1.0, 2), (0.0, 1.0, 1.0, 1.0, 1), (0.5, 0.5, 4.0, 0.5, 2)],
)
def test_value_by_hand(edge, body, edge_tau, body_tau, radius):
    options = {"edge": edge, "body": body, "edge_tau": edge_tau, "body_tau": body_tau, "radius": radius}
    assert bpkd(*case(), **options).item() == pytest.approx(by_hand(*case(), **options), rel=1e-9)


def test_golden_value():
    assert bpkd(*case()).item() == pytest.approx(2.316066511767, rel=1e-9)


def test_edges_are_the_trimap_of_dilated_and_eroded_classes():
    labels = torch.randint(0, 3, (2, 9, 8), generator=torch.Generator().manual_seed(0)).clamp(max=1) * 2
    labels[0, 4:6, 3:6] = VOID
    for radius in (1, 2):
        found = edges(labels, labels != VOID, radius)
        for n, y, x in torch.cartesian_prod(torch.arange(2), torch.arange(9), torch.arange(8)).tolist():
            assert found[n, y, x].item() == is_edge(labels, n, y, x, radius)


def test_one_class_has_no_edge_and_chequers_no_body():
    student, teacher, labels = case()
    plain = torch.zeros_like(labels)
    assert not edges(plain, plain == 0, 3).any()
    assert bpkd(student, teacher, plain, body=0.0).item() == 0
    chequers = (torch.arange(6)[:, None] + torch.arange(7)) % 2
    assert bpkd(student, teacher, chequers.expand(2, 6, 7), edge=0.0).item() == pytest.approx(0, abs=1e-12)


def test_a_pixel_counts_in_one_term_alone():
    """Changing the teacher at edges leaves the body's term, and the other way round."""
    student, teacher, labels = case()
    edge = edges(labels, labels != VOID, 1)[:, None]
    for where, same, other in ((edge, "edge", "body"), (~edge, "body", "edge")):
        changed = teacher + where * reference.field(2, 4, 6, 7, 3.0)
        without, alone = {same: 0.0, other: 1.0}, {same: 1.0, other: 0.0}
        assert bpkd(student, changed, labels, **without) == bpkd(student, teacher, labels, **without)
        assert bpkd(student, changed, labels, **alone) != bpkd(student, teacher, labels, **alone)


def test_gradient_is_that_of_finite_differences():
    student, teacher, labels = case()
    assert torch.autograd.gradcheck(lambda x: bpkd(x, teacher, labels), student, fast_mode=True)
