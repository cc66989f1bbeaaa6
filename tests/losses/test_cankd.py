"""CanKD against the attention written out pixel by pixel."""

import pytest
import reference
import torch
from material import seg_spec
from torch import nn

from fakd.losses.cankd import CanKD
from fakd.structures import LossInputs, SegOutput


def cankd(student=6, teacher=6, **options):
    torch.manual_seed(0)
    return CanKD(CanKD.Config(**options), seg_spec(5, student), seg_spec(5, teacher)).double()


def inputs_of(student, teacher):
    n, _, h, w = student.shape
    outputs = [SegOutput(x.new_zeros(n, 5, h, w), x, x.new_zeros(5, x.shape[1])) for x in (student, teacher)]
    labels = torch.zeros(n, h, w, dtype=torch.int64)
    return LossInputs(*outputs, labels, labels == 0)


def standard(x):
    """Each channel of each image to mean 0 and deviation 1."""
    flat = x.flatten(2)
    return (flat - flat.mean(2, keepdim=True)) / flat.std(2, correction=0, keepdim=True)


@pytest.mark.parametrize("channels", [4, 6])
def test_value_by_hand(channels):
    student, teacher = reference.field(2, channels, 3, 4, 1.0), reference.field(2, 6, 3, 4, 2.0)
    loss = cankd(channels)
    assert isinstance(loss.adapter, nn.Identity) == (channels == 6)
    s = loss.adapter(student)
    theta, phi, g = loss.query(s), loss.key(teacher), loss.value(teacher)
    mixed = torch.zeros_like(theta)
    for n in range(2):
        for y in range(3):
            for x in range(4):
                for v in range(3):
                    for u in range(4):
                        score = (theta[n, :, y, x] * phi[n, :, v, u]).sum() / 12
                        mixed[n, :, y, x] += score * g[n, :, v, u]
    z = s + loss.back(mixed)
    wanted = (standard(z) - standard(teacher)).square().mean() / 2
    assert loss(inputs_of(student, teacher)).item() == pytest.approx(wanted.item(), rel=1e-9)


def test_golden_value():
    loss = cankd()
    for i, p in enumerate(loss.parameters()):
        p.data = torch.arange(p.numel(), dtype=torch.float64).add(i).sin().view_as(p)
    student, teacher = reference.field(2, 6, 3, 4, 1.0), reference.field(2, 6, 3, 4, 2.0)
    assert loss(inputs_of(student, teacher)).item() == pytest.approx(1.001649320714, rel=1e-9)


def test_without_attention_it_is_half_the_channel_wise_normalised_distance():
    loss = cankd()
    for p in loss.back.parameters():
        p.data.zero_()
    student, teacher = reference.field(2, 6, 5, 4, 1.0), reference.field(2, 6, 5, 4, 2.0)
    wanted = (standard(student) - standard(teacher)).square().mean() / 2
    assert loss(inputs_of(student, teacher)).item() == pytest.approx(wanted.item(), rel=1e-9)
    scaled = loss(inputs_of(3 * student + 1, 0.5 * teacher - 2))
    assert scaled.item() == pytest.approx(wanted.item(), rel=1e-9)
    assert loss(inputs_of(teacher, teacher)).item() == pytest.approx(0, abs=1e-12)
    assert loss(inputs_of(-teacher, teacher)).item() == pytest.approx(2, rel=1e-9)  # the largest


def test_gradient_is_that_of_finite_differences():
    loss, teacher = cankd(), reference.field(1, 6, 3, 3, 2.0)
    student = reference.field(1, 6, 3, 3, 1.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(inputs_of(x, teacher)), student, fast_mode=True)


def test_the_share_of_channels_is_the_attention_s():
    assert cankd(teacher=8, channels=0.25).query.out_channels == 2
