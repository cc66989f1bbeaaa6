"""NormalizedFeature against 2 - 2 cos, and single channels."""

import math

import material
import pytest
import reference
import torch
import torch.nn.functional as F
from material import VOID, loss_inputs, seg_spec
from torch import nn

from fakd.functional.relation import standardized_channels
from fakd.losses.normalized_feature import NormalizedFeature
from fakd.structures import SegOutput

SPEC, OTHER = seg_spec(5, 6), seg_spec(5, 9)


SIZE = (7, 9)


def seg_output(spec, size=SIZE, seed=0):
    return material.seg_output(spec, size=size, seed=seed)


def draw_labels(size=SIZE):
    return material.draw_labels(size=size)


def build(student=SPEC, teacher=SPEC, **options):
    return NormalizedFeature(NormalizedFeature.Config(**options), student, teacher)


@pytest.mark.parametrize("masked", [False, True])
def test_it_is_two_minus_two_cosines(masked):
    labels = draw_labels()
    inputs = loss_inputs(seg_output(SPEC, seed=1), seg_output(SPEC, seed=2), labels)
    wanted = 2 - 2 * F.cosine_similarity(inputs.student.feature, inputs.teacher.feature, dim=1)
    wanted = wanted[labels != VOID] if masked else wanted
    assert build(mask_ignored=masked)(inputs).item() == pytest.approx(wanted.mean().item(), rel=1e-5)


def test_lengths_do_not_count():
    inputs = loss_inputs(seg_output(SPEC, seed=1), seg_output(SPEC, seed=2), draw_labels())
    value = build()(inputs)
    with torch.no_grad():
        inputs.student.feature.mul_(1 + torch.rand(2, 1, 7, 9))
    assert build()(inputs).item() == pytest.approx(value.item(), rel=1e-5)


def test_an_adapter_only_where_channels_differ():
    assert isinstance(build().adapter, nn.Identity)
    inputs = loss_inputs(seg_output(SPEC, seed=1), seg_output(OTHER, seed=2, size=(4, 5)), draw_labels())
    loss = build(SPEC, OTHER)
    loss(inputs).backward()
    (weight,) = loss.parameters()
    assert weight.shape == (9, 6, 1, 1) and weight.grad.any()


# Channels -----------------------------------------------------------------------------------------------


def channel_by_hand(student, teacher, valid):
    """The formula, one channel of one image at a time."""
    total = count = 0.0
    for n in range(len(student)):
        chosen = valid[n].flatten().nonzero()[:, 0]
        for s, t in zip(student[n].flatten(1), teacher[n].flatten(1), strict=True):
            pair = []
            for values in (s[chosen].tolist(), t[chosen].tolist()):
                mean = math.fsum(values) / len(values)
                deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))
                pair.append([(v - mean) / deviation for v in values])
            total += math.fsum((a - b) ** 2 for a, b in zip(*pair, strict=True))
            count += len(chosen)
    return total / count


@pytest.mark.parametrize("masked", [False, True])
def test_channels_by_hand(masked):
    inputs = loss_inputs(seg_output(SPEC, seed=1), seg_output(SPEC, seed=2), draw_labels())
    valid = inputs.valid if masked else torch.ones_like(inputs.valid)
    maps = (x.feature.detach().double() for x in (inputs.student, inputs.teacher))
    value = build(norm="channel", mask_ignored=masked)(inputs).item()
    assert value == pytest.approx(channel_by_hand(*maps, valid), rel=1e-5)


def test_channels_golden_value():
    maps = [reference.field(2, 4, 3, 5, a) for a in (1.0, 2.0)]
    empty = torch.zeros(3, 4)
    outputs = [SegOutput(x.new_zeros(2, 3, 3, 5), x, empty) for x in maps]
    labels = torch.zeros(2, 3, 5, dtype=torch.int64)
    loss = NormalizedFeature(NormalizedFeature.Config(norm="channel"), seg_spec(3, 4), seg_spec(3, 4))
    assert loss(loss_inputs(*outputs, labels)).item() == pytest.approx(0.9138814212434, abs=1e-12)


def test_mean_and_scale_of_a_channel_do_not_count():
    inputs = loss_inputs(seg_output(SPEC, seed=1), seg_output(SPEC, seed=2), draw_labels())
    value = build(norm="channel")(inputs)
    with torch.no_grad():
        inputs.student.feature.mul_(1 + torch.rand(2, 6, 1, 1)).add_(torch.randn(2, 6, 1, 1))
    assert build(norm="channel")(inputs).item() == pytest.approx(value.item(), rel=1e-4)


@pytest.mark.parametrize("constant, size", [(3.7, (4, 5)), (10.7, (64, 64)), (-12345.6, (61, 67))])
def test_a_constant_channel_is_zero_without_gradient(constant, size):
    feature = torch.full((1, 2, *size), constant, requires_grad=True)
    value = standardized_channels(feature, torch.ones(1, *size, dtype=torch.bool))
    value.sum().backward()
    assert not value.any() and not feature.grad.any()


def test_the_gradient_through_the_normalisation_of_channels():
    feature = torch.randn(2, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    weight, valid = torch.randn_like(feature), torch.rand(2, 2, 4) < 0.7
    assert torch.autograd.gradcheck(lambda x: (standardized_channels(x, valid) * weight).sum(), feature)


def test_without_a_labelled_pixel_masked_channels_cost_nothing():
    labels = torch.full((2, *SIZE), VOID)
    inputs = loss_inputs(seg_output(SPEC, seed=1), seg_output(SPEC, seed=2), labels)
    value = build(norm="channel", mask_ignored=True)(inputs)
    value.backward()
    assert value.item() == 0 and not inputs.student.feature.grad.any()
