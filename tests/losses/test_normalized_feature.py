"""NormalizedFeature against 2 - 2 cos."""

import material
import pytest
import torch
import torch.nn.functional as F
from material import VOID, loss_inputs, seg_spec
from torch import nn

from fakd.losses.normalized_feature import NormalizedFeature

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
