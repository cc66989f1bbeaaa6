"""MGD against its formula."""

import material
import pytest
import torch
import torch.nn.functional as F
from material import VOID, loss_inputs, seg_spec
from torch import nn

from fakd.losses.mgd import MGD

STUDENT, TEACHER = seg_spec(5, 4), seg_spec(5, 6)


SIZE = (7, 9)


def seg_output(spec, size=SIZE, seed=0):
    return material.seg_output(spec, size=size, seed=seed)


def draw_labels(size=SIZE):
    return material.draw_labels(size=size)


def mgd(student=STUDENT, teacher=TEACHER, **options):
    return MGD(MGD.Config(**options), student, teacher)


def case(student=STUDENT, labels=None):
    labels = draw_labels() if labels is None else labels
    return loss_inputs(seg_output(student, seed=1), seg_output(TEACHER, seed=2), labels)


def test_value_by_hand():
    loss, inputs = mgd(mask_ratio=0.5), case()
    torch.manual_seed(7)
    value = loss(inputs)
    torch.manual_seed(7)
    mask = (torch.rand(2, 1, 7, 9) >= 0.5).float()
    first, _, second = loss.generator
    x = F.conv2d(inputs.student.feature, loss.adapter[0].weight) * mask
    x = F.conv2d(x, first.weight, first.bias, padding=1).relu()
    x = F.conv2d(x, second.weight, second.bias, padding=1)
    wanted = sum(((a - b) ** 2).sum() for a, b in zip(x, inputs.teacher.feature, strict=True)) / 2
    assert value.item() == pytest.approx(wanted.item(), rel=1e-5)


def erased(loss, inputs):
    """(N, 1, h, w) pixels that the generator does not see, and the loss."""
    seen = []
    loss.generator.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    value = loss(inputs)
    return (seen[0] == 0).all(1), value


def test_the_share_of_erased_pixels_and_their_draw():
    inputs = loss_inputs(
        seg_output(STUDENT, size=(40, 40)), seg_output(TEACHER, size=(40, 40)), draw_labels(size=(40, 40))
    )
    torch.manual_seed(3)
    first, value = erased(mgd(mask_ratio=0.75), inputs)
    assert first.float().mean().item() == pytest.approx(0.75, abs=0.03)
    loss = mgd(mask_ratio=0.75)
    torch.manual_seed(4)
    second, again = erased(loss, inputs)
    torch.manual_seed(4)
    third, same = erased(loss, inputs)
    assert not torch.equal(first, second) and torch.equal(second, third) and again.item() == same.item()


def test_an_adapter_only_where_channels_differ():
    assert isinstance(mgd(TEACHER).adapter, nn.Identity)
    assert sum(p.numel() for p in mgd(TEACHER).parameters()) == 18 * 6**2 + 2 * 6
    assert sum(p.numel() for p in mgd().adapter.parameters()) == 4 * 6


def test_a_void_batch_of_a_masked_loss_is_zero_for_every_parameter():
    loss = mgd(mask_ignored=True)
    value = loss(case(labels=torch.full((2, 7, 9), VOID)))
    value.backward()
    assert value.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in loss.parameters())


def test_a_share_outside_its_range_names_its_key():
    with pytest.raises(ValueError, match="KD.MGD.MASK_RATIO"):
        mgd(mask_ratio=1.0)
