"""AT, FitNet and DSD; CWD of features; the maps they look at."""

import logging

import pytest
import reference
import torch
import torch.nn.functional as F
from material import VOID, build_loss, draw_labels, loss_inputs, seg_output, seg_spec
from reference import field, golden_inputs

from fakd.losses.dsd import category_similarity, pixel_similarity
from fakd.structures import LossInputs, SegOutput

S, T = field(2, 3, 4, 5, 2.0), field(2, 3, 4, 5, 3.0)
SPEC, WIDE = seg_spec(3, 8, width=6), seg_spec(3, 12, width=10)


def inputs_of(student=S, teacher=T, labels=None):
    outputs = [SegOutput(x, x, torch.eye(x.shape[1])) for x in (student, teacher)]
    labels = torch.zeros(len(student), *student.shape[2:], dtype=torch.long) if labels is None else labels
    return LossInputs(*outputs, labels, labels != VOID)


def networks(size=(9, 11), teacher_size=(9, 11)):
    student, teacher = seg_output(SPEC, size=size), seg_output(WIDE, size=teacher_size, seed=1)
    return loss_inputs(student, teacher, draw_labels(size=size, num_classes=3))


# The pixel terms of SKDS and IFVD are PD under other reductions, which their recipes' weights stand for.


def test_reductions_of_the_pixel_term():
    pd = build_loss("PD", SPEC, SPEC)(inputs_of()).item()
    entropy = reference.pixel_entropy(T, 1.0)
    n, k = S.shape[:2]
    assert n * (pd + entropy) == pytest.approx(2.1537296509, abs=1e-8)  # SKDS: sum over the batch
    assert pd / k == pytest.approx(0.2170371655, abs=1e-9)  # IFVD: mean over elements


# AT ----------------------------------------------------------------------------------------------------


def test_at_golden_value():
    assert build_loss("AT", SPEC, SPEC)(inputs_of()).item() == pytest.approx(0.0060681916, abs=1e-9)


def test_at_ignores_scale_and_order_of_channels():
    loss = build_loss("AT", SPEC, SPEC)
    changed = loss(inputs_of(7 * S, T[:, [2, 0, 1]]))
    torch.testing.assert_close(changed, loss(inputs_of()))
    assert loss(inputs_of(S, S)).item() == 0


def test_at_of_labelled_pixels_only():
    labels = golden_inputs().labels
    keep = labels != VOID
    expected = 0.0
    for n in range(2):
        a, b = (x[n].square().mean(0)[keep[n]] for x in (S, T))
        expected += (a / a.norm() - b / b.norm()).square().sum() / keep.sum()
    got = build_loss("AT", SPEC, SPEC, MASK_IGNORED=True)(inputs_of(labels=labels))
    torch.testing.assert_close(got, expected)


# FitNet ------------------------------------------------------------------------------------------------


def test_fitnet_is_zero_where_its_convolution_reaches_the_teacher():
    loss = build_loss("FitNet", SPEC, WIDE)
    inputs = networks()
    assert loss(inputs) > 0
    reached = loss.adapter(inputs.student.feature).detach()
    teacher = SegOutput(inputs.teacher.logits, reached, inputs.teacher.weight)
    assert loss(LossInputs(inputs.student, teacher, inputs.labels, inputs.valid)).item() == 0


def test_fitnet_by_hand_with_and_without_void():
    inputs = networks()
    for masked in (False, True):
        torch.manual_seed(0)
        loss = build_loss("FitNet", SPEC, WIDE, MASK_IGNORED=masked)
        weight = loss.adapter[0].weight.flatten(1)
        gap = torch.einsum("ba,nahw->nbhw", weight, inputs.student.feature) - inputs.teacher.feature
        if masked:
            gap = gap.movedim(1, -1)[inputs.valid]
        torch.testing.assert_close(loss(inputs), gap.square().mean())


@pytest.mark.parametrize("always, parameters", [(True, 1), (False, 0)])
def test_fitnet_adapts_equal_channels_only_if_asked(always, parameters):
    loss = build_loss("FitNet", SPEC, SPEC, ALWAYS_ADAPT=always)
    assert len(list(loss.parameters())) == parameters


# DSD ---------------------------------------------------------------------------------------------------


def test_dsd_golden_values():
    assert category_similarity(S, T, 4.0).item() == pytest.approx(1.4071735532e-4, abs=1e-13)
    student = [field(2, 4, 4, 5, 1.0), field(2, 6, 4, 5, 1.5), S]
    teacher = [field(2, 5, 4, 5, 1.2), field(2, 7, 4, 5, 1.7), T]
    assert pixel_similarity(student, teacher, S).item() == pytest.approx(0.105226564, abs=1e-8)


def test_a_constant_on_a_channel_leaves_its_category_similarity():
    constant = torch.tensor([3.0, -1.0, 0.5])[:, None, None]
    torch.testing.assert_close(category_similarity(S + constant, T, 4.0), category_similarity(S, T, 4.0))


def test_equal_maps_of_one_network_are_harmless():
    x = S.clone().requires_grad_()
    value = pixel_similarity([x, 2 * x, 3 * x], [T, 2 * T, field(2, 4, 4, 5, 1.0)], S)
    value.backward()
    assert value.isfinite() and x.grad.isfinite().all() and x.grad.abs().max() < 1


def test_dsd_adds_its_terms_with_their_factors():
    inputs = networks(teacher_size=(18, 21))
    value = {}
    for psd, csd in ((1.0, 0.0), (0.0, 1.0), (5.0, 7.0)):
        value[psd, csd] = build_loss("DSD", SPEC, WIDE, PSD_WEIGHT=psd, CSD_WEIGHT=csd)(inputs)
    torch.testing.assert_close(value[5.0, 7.0], 5 * value[1.0, 0.0] + 7 * value[0.0, 1.0])


# CWD of features ---------------------------------------------------------------------------------------


def test_cwd_of_equal_channels_needs_no_adapter():
    loss = build_loss("CWD", SPEC, SPEC, SOURCE="feature", TAU=2.0)
    assert not list(loss.parameters())
    assert loss(inputs_of()).item() == pytest.approx(reference.cwd(S, T, 2.0), abs=1e-10)


def test_cwd_divides_by_the_projected_channels_or_as_cirkd():
    inputs, values = networks(), {}
    for divide_by in ("projected", "student"):
        torch.manual_seed(0)
        loss = build_loss("CWD", SPEC, WIDE, SOURCE="feature", DIVIDE_BY=divide_by)
        values[divide_by] = loss(inputs).item()
    projected = loss.adapter(inputs.student.feature).double()
    expected = reference.cwd(projected, inputs.teacher.feature.double(), 4.0)
    assert values["projected"] == pytest.approx(expected, rel=1e-4)
    assert values["student"] == pytest.approx(expected * 12 / 8, rel=1e-4)


def test_cwd_of_both_is_the_sum():
    inputs, values = networks(), {}
    for source in ("logits", "feature", "both"):
        torch.manual_seed(0)
        values[source] = build_loss("CWD", SPEC, WIDE, SOURCE=source, FEATURE_FACTOR=3.0)(inputs)
    torch.testing.assert_close(values["both"], values["logits"] + values["feature"])


def test_cwd_of_logits_builds_nothing():
    assert not list(build_loss("CWD", SPEC, WIDE).parameters())


# The maps ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["AT", "FitNet", "DSD"])
def test_an_unknown_map_is_named_with_its_key(name):
    with pytest.raises(ValueError, match=rf"KD\.{name}\.TAP is 'res9'.*res5"):
        build_loss(name, SPEC, WIDE, TAP="res9")


@pytest.mark.parametrize("name", ["AT", "FitNet"])
@pytest.mark.parametrize("masked", [True, False])
def test_a_stage_of_another_grid(name, masked):
    """The teacher's stage goes to the grid of the student's, as does the mask."""
    inputs = networks(teacher_size=(18, 21))
    assert build_loss(name, SPEC, WIDE, TAP="res2", MASK_IGNORED=masked)(inputs) > 0


def test_at_resizes_the_teacher_s_map_not_its_energy():
    inputs = networks(teacher_size=(18, 21))
    resized = F.interpolate(inputs.teacher.feature, size=(9, 11), mode="bilinear")
    expected = build_loss("AT", SPEC, WIDE)(
        LossInputs(inputs.student, SegOutput(resized, resized, resized), inputs.labels, inputs.valid)
    )
    torch.testing.assert_close(build_loss("AT", SPEC, WIDE)(inputs), expected)


def test_batches_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="2 images, the teacher's of 1"):
        build_loss("AT", SPEC, SPEC)(inputs_of(S, T[:1]))


def test_adapters_are_logged_with_their_shapes(caplog):
    with caplog.at_level(logging.INFO, "fakd"):
        build_loss("CWD", SPEC, WIDE, SOURCE="feature", ADAPTER_NORM=True)
        build_loss("FitNet", SPEC, SPEC, ALWAYS_ADAPT=False)
    assert [r.getMessage() for r in caplog.records if "adapter" in r.getMessage()] == [
        "KD.CWD: adapter from the student's 8 channels to the teacher's 12: 1x1 convolution, batch norm, "
        "ReLU, 120 weights."
    ]
