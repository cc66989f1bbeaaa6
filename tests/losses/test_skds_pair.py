"""SKDS's pair-wise term: pooling, symmetries, blocks."""

import pytest
import torch
from material import build_loss, draw_labels, loss_inputs, seg_output
from reference import field

from fakd.functional import relation
from fakd.structures import LossInputs, SegOutput, SegSpec

SPEC = SegSpec(3, 3)


def inputs_of(student, teacher):
    """Maps that are the feature and the logits at once; the loss looks at the first."""
    n, _, h, w = student.shape
    labels = torch.zeros(n, h, w, dtype=torch.long)
    outputs = [SegOutput(x, x, torch.eye(x.shape[1])) for x in (student, teacher)]
    return LossInputs(*outputs, labels, labels >= 0)


def drawn(n=2, channels=6, size=(8, 6), seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, channels, *size, generator=g, dtype=torch.float64)


def by_hand(student, teacher, detach=False):
    """The formula of one image pair of node vectors (N, A, P) with two similarity matrices."""
    matrices = []
    for x in (student, teacher):
        norm = x.norm(dim=1, keepdim=True)
        x = x / (norm.detach() if detach else norm)
        matrices.append(x.transpose(1, 2) @ x)
    return (matrices[0] - matrices[1]).square().mean()


@pytest.mark.parametrize("options", [{}, {"KERNEL": 2}, {"DETACH_NORM": False}])
def test_golden_value(options):
    loss = build_loss("SKDSPair", SPEC, SPEC, **options)
    value = loss(inputs_of(field(2, 3, 4, 5, 2.0), field(2, 3, 4, 5, 3.0)))
    assert value.item() == pytest.approx(0.1719422663, abs=1e-9)


@pytest.mark.parametrize("size, nodes", [((64, 64), 4), ((65, 65), 9), ((64, 128), 4), ((1, 1), 1)])
def test_nodes_at_half_scale(size, nodes):
    loss = build_loss("SKDSPair", SPEC, SPEC)
    assert loss.nodes(drawn(size=size)).shape == (2, 6, nodes)


@pytest.mark.parametrize("block", [relation.CPU_BLOCK, 7])
@pytest.mark.parametrize("detach", [True, False])
def test_value_and_gradient_of_the_plain_form(monkeypatch, block, detach):
    monkeypatch.setattr(relation, "CPU_BLOCK", block)
    student, teacher = drawn().requires_grad_(), drawn(channels=9, seed=1)
    loss = build_loss("SKDSPair", SPEC, SPEC, KERNEL=1, DETACH_NORM=detach)
    value = loss(inputs_of(student, teacher))
    expected = by_hand(student.flatten(2), teacher.flatten(2), detach)
    torch.testing.assert_close(value, expected)
    gradients = [torch.autograd.grad(x, student)[0] for x in (value, expected)]
    torch.testing.assert_close(*gradients)


def test_float32_gradient_next_to_a_near_teacher():
    """Where the form with channel products loses three digits."""
    teacher = drawn(1, 32, (16, 16))
    student = teacher + 0.01 * drawn(1, 32, (16, 16), seed=1)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        x = student.to(dtype).requires_grad_()
        nodes = relation.unit_vectors(x.flatten(2), 1)
        relation.similarity_gap(nodes, relation.unit_vectors(teacher.to(dtype).flatten(2), 1)).backward()
        gradients.append(x.grad.double())
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[1].norm()


def test_scale_of_pixels_and_rotation_of_channels_do_not_count():
    student, teacher = drawn(), drawn(seed=1)
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    loss = build_loss("SKDSPair", SPEC, SPEC, KERNEL=1)
    scaled = student * torch.rand(2, 1, 8, 6, dtype=torch.float64).add(0.5)
    rotated = torch.einsum("ab,nbhw->nahw", rotation, teacher)
    value = loss(inputs_of(student, teacher))
    assert value > 0
    torch.testing.assert_close(loss(inputs_of(scaled, rotated)), value)


@pytest.mark.parametrize("detach", [True, False])
def test_only_an_attached_norm_keeps_the_gradient_orthogonal(detach):
    student = drawn().requires_grad_()
    loss = build_loss("SKDSPair", SPEC, SPEC, KERNEL=1, DETACH_NORM=detach)
    loss(inputs_of(student, drawn(seed=1))).backward()
    along = (student.grad * student.detach()).sum(1).abs().max()
    assert (along > 1e-6) if detach else (along < 1e-12)


def test_a_dead_node_is_harmless():
    student = torch.zeros(1, 6, 8, 6, dtype=torch.float64, requires_grad=True)
    loss = build_loss("SKDSPair", SPEC, SPEC)
    loss(inputs_of(student, drawn(1))).backward()
    assert not student.grad.any()


def test_a_teacher_of_another_grid_and_width():
    student, teacher = SegSpec(5, 8), SegSpec(5, 12)
    spec = SegSpec(5, 8, {f"res{i}": 4 for i in range(2, 6)})
    wide = SegSpec(5, 12, {f"res{i}": 4 for i in range(2, 6)})
    inputs = loss_inputs(
        seg_output(spec, size=(9, 11)), seg_output(wide, size=(18, 21)), draw_labels(size=(9, 11))
    )
    assert build_loss("SKDSPair", student, teacher)(inputs) > 0


@pytest.mark.parametrize(("key", "value"), [("KERNEL", -1), ("SCALE", 0.0)])
def test_a_pool_that_makes_no_nodes_is_refused(key, value):
    with pytest.raises(ValueError, match=f"KD.SKDSPair.{key} is {value}, but must be"):
        build_loss("SKDSPair", SPEC, SPEC, **{key: value})
