"""PD and CWD as losses: their reductions, options and grids."""

import pytest
import reference
import torch
from material import build_loss, draw_labels, loss_inputs, seg_output, seg_spec
from reference import golden_inputs

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
