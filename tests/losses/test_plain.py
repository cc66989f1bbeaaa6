"""PD and CWD as losses: their reductions, options and grids."""

import itertools
import math
from dataclasses import replace

import pytest
import reference
import torch
from material import build_loss, draw_labels, loss_inputs, seg_output, seg_spec
from reference import golden_inputs

from fakd.functional.relation import standardized
from fakd.structures import LossInputs, SegOutput, SegSpec

LOOPS = {"PD": reference.pd, "CWD": reference.cwd}
SPEC = SegSpec(3, 6)


def golden_loss_inputs():
    g = golden_inputs()
    student = SegOutput(g.student.requires_grad_(), g.feature, g.weight)
    return LossInputs(student, SegOutput(g.teacher, g.feature, g.weight), g.labels, g.valid)


@pytest.mark.parametrize(
    "name, tau, value",
    [
        ("PD", 1.0, 0.6511114964),
        ("PD", 4.0, 1.2772081197),
        ("CWD", 1.0, 0.7359067293),
        ("CWD", 4.0, 1.3939159030),
    ],
)
def test_golden_values(name, tau, value):
    loss = build_loss(name, SPEC, SPEC, TAU=tau)
    assert loss(golden_loss_inputs()).item() == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("name", LOOPS)
def test_void_takes_part_unless_masked(name):
    inputs = golden_loss_inputs()
    s, t = inputs.student.logits, inputs.teacher.logits
    for masked, valid in ((False, None), (True, inputs.valid)):
        loss = build_loss(name, SPEC, SPEC, TAU=2.0, MASK_IGNORED=masked)
        assert loss(inputs).item() == pytest.approx(LOOPS[name](s, t, 2.0, valid), abs=1e-10)


@pytest.mark.parametrize("name", LOOPS)
def test_a_teacher_of_another_stride_is_resized_to_the_student(name):
    spec = seg_spec()
    student, teacher = seg_output(spec, size=(5, 7)), seg_output(spec, size=(10, 13), seed=1)
    inputs = loss_inputs(student, teacher, draw_labels(size=(5, 7)))
    resized = torch.nn.functional.interpolate(teacher.logits, size=(5, 7), mode="bilinear")
    loss = build_loss(name, spec, spec)
    expected = LOOPS[name](student.logits.double(), resized.double(), loss.config.tau)
    assert loss(inputs).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", LOOPS)
def test_other_class_counts_are_refused(name):
    student, teacher = seg_output(seg_spec(5)), seg_output(seg_spec(6))
    with pytest.raises(ValueError, match="NUM_CLASSES"):
        build_loss(name, seg_spec(5), seg_spec(6))(loss_inputs(student, teacher, draw_labels()))


# Standardised logits ------------------------------------------------------------------------------------


def by_hand(logits):
    """(N, K, h, w) with mean 0 and deviation 1 over the classes, one pixel at a time."""
    result = torch.empty_like(logits)
    for n, h, w in itertools.product(*(range(logits.shape[i]) for i in (0, 2, 3))):
        z = logits[n, :, h, w]
        mean = math.fsum(z) / len(z)
        deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in z.tolist()) / len(z))
        result[n, :, h, w] = z.new_tensor([(v - mean) / deviation for v in z.tolist()])
    return result


@pytest.mark.parametrize("name", LOOPS)
def test_standardised_logits(name):
    inputs = golden_loss_inputs()
    loss = build_loss(name, SPEC, SPEC, TAU=2.0, STANDARDIZE=True)
    student, teacher = (by_hand(x.logits.detach()) for x in (inputs.student, inputs.teacher))
    assert loss(inputs).item() == pytest.approx(LOOPS[name](student, teacher, 2.0), abs=1e-10)


def test_dkd_of_standardised_logits_is_that_of_logits_standardised_before():
    inputs = golden_loss_inputs()
    student, teacher = (
        replace(x, logits=by_hand(x.logits.detach())) for x in (inputs.student, inputs.teacher)
    )
    before = build_loss("DKD", SPEC, SPEC)(replace(inputs, student=student, teacher=teacher))
    assert build_loss("DKD", SPEC, SPEC, STANDARDIZE=True)(inputs).item() == pytest.approx(before.item())


@pytest.mark.parametrize("name", [*LOOPS, "DKD"])
def test_scale_and_shift_of_the_logits_do_not_count_if_they_are_standardised(name):
    inputs = golden_loss_inputs()
    loss = build_loss(name, SPEC, SPEC, STANDARDIZE=True)
    moved = replace(inputs, student=replace(inputs.student, logits=7 * inputs.student.logits - 3))
    assert loss(moved).item() == pytest.approx(loss(inputs).item(), abs=1e-12)


@pytest.mark.parametrize("constant, num_classes", [(12.3, 5), (1000.1, 19), (-1000.3, 150)])
def test_equal_logits_are_standardised_to_zero_without_gradient(constant, num_classes):
    logits = torch.full((1, num_classes, 3), constant, requires_grad=True)
    value = standardized(logits)
    value.sum().backward()
    assert not value.any() and not logits.grad.any()


def test_the_gradient_through_the_standardisation():
    logits = golden_inputs().student.flatten(2).requires_grad_()
    weight = torch.randn_like(logits)
    assert torch.autograd.gradcheck(lambda x: (standardized(x) * weight).sum(), logits)


def test_standardised_logits_without_logits_are_refused():
    with pytest.raises(ValueError, match=r"KD\.CWD\.STANDARDIZE.*SOURCE"):
        build_loss("CWD", SPEC, SPEC, SOURCE="feature", STANDARDIZE=True)
