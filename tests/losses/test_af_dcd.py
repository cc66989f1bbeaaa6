"""Af-DCD against loops over single pixels and groups."""

import math

import pytest
import reference
import torch
from material import build_loss, seg_spec

from fakd.losses.af_dcd import AfDCD

SPEC = seg_spec(5, 6)


def af_dcd(**options):
    return AfDCD(AfDCD.Config(**options), SPEC, SPEC).double()


def contrast(loss, own, target, counted=None):
    counted = torch.ones_like(own[:, :1], dtype=torch.bool) if counted is None else counted
    return loss.contrast(own, target, counted)


def by_hand(own, target, pool, patch, groups, tau, negatives):
    """Mean over anchors of -log of the share of the positive, over (A, h, w) lists of each image."""
    losses = []
    for z, t in zip(own, target, strict=True):
        maps = [pooled(x, pool) for x in (z, t)]
        height, width = len(maps[0]), len(maps[0][0])
        for top in range(0, height, patch):
            for left in range(0, width, patch):
                places = [
                    (y, x, g)
                    for y in range(top, min(top + patch, height))
                    for x in range(left, min(left + patch, width))
                    for g in range(groups)
                ]
                for y, x, g in places:
                    scores = {
                        (v, u, k): math.exp(-distance(maps[0][y][x], maps[1][v][u], g, k, groups) / tau)
                        for v, u, k in places
                        if negatives == "all" or k != g or (v, u) == (y, x)
                    }
                    losses.append(-math.log(scores[y, x, g] / sum(scores.values())))
    return sum(losses) / len(losses)


def pooled(x, pool):
    """Rows of columns of channel lists, each the maximum of a square."""
    a, h, w = x.shape
    return [
        [[x[c, y : y + pool, u : u + pool].max().item() for c in range(a)] for u in range(0, w, pool)]
        for y in range(0, h, pool)
    ]


def distance(a, b, g, k, groups):
    width = len(a) // groups
    pairs = zip(a[g * width : (g + 1) * width], b[k * width : (k + 1) * width], strict=True)
    return sum(abs(x - y) for x, y in pairs) / width


@pytest.mark.parametrize("negatives", ["groups", "all"])
@pytest.mark.parametrize(
    ("pool", "patch", "groups", "size"), [(1, 2, 3, (4, 4)), (2, 2, 2, (7, 5)), (1, 4, 6, (3, 5))]
)
def test_value_by_hand(pool, patch, groups, size, negatives):
    own, target = (reference.field(2, 6, *size, phase) for phase in (1.0, 2.0))
    loss = af_dcd(pool=pool, patch=patch, groups=groups, tau=0.3, negatives=negatives)
    value = contrast(loss, own, target).item()
    assert value == pytest.approx(by_hand(own, target, pool, patch, groups, 0.3, negatives), rel=1e-9)


def test_golden_value():
    own, target = (reference.field(2, 6, 7, 5, phase) for phase in (1.0, 2.0))
    value = contrast(af_dcd(pool=2, patch=2, groups=3), own, target).item()
    assert value == pytest.approx(6.297129001030, rel=1e-9)


def test_it_is_least_where_every_group_is_its_own_partner():
    """Equal maps are better than the same map with its groups exchanged, and than any noise on it."""
    target = reference.field(1, 6, 8, 8, 1.0)
    loss = af_dcd(pool=1, patch=4, groups=3, tau=1.0)
    least = contrast(loss, target, target)
    assert contrast(loss, target.roll(2, 1), target) > least
    g = torch.Generator().manual_seed(0)
    for _ in range(5):
        noise = torch.randn(target.shape, generator=g, dtype=torch.float64)
        assert contrast(loss, target + noise, target) > least


def test_patches_do_not_see_each_other():
    own, target = (reference.field(1, 6, 8, 8, phase) for phase in (1.0, 2.0))
    loss = af_dcd(pool=1, patch=4, groups=3)
    halves = [contrast(loss, own[..., part], target[..., part]) for part in (slice(0, 4), slice(4, 8))]
    assert contrast(loss, own, target).item() == pytest.approx((sum(halves) / 2).item(), rel=1e-9)


def test_gradient_is_that_of_finite_differences():
    own, target = (reference.field(1, 6, 5, 5, phase) for phase in (1.0, 2.0))
    loss = af_dcd(pool=1, patch=4, groups=3, tau=1.0)
    assert torch.autograd.gradcheck(lambda x: contrast(loss, x, target), own.requires_grad_(), fast_mode=True)


def test_groups_are_what_divides_the_channels():
    assert build_loss("AfDCD", SPEC, seg_spec(5, 12)).groups == 4
    with pytest.raises(ValueError, match="GROUPS 16 and the teacher's 7 channels share no divisor"):
        build_loss("AfDCD", SPEC, seg_spec(5, 7))
    assert build_loss("AfDCD", SPEC, seg_spec(5, 7), NEGATIVES="all").groups == 1


def test_a_void_column_is_as_if_the_map_ended_before_it():
    own, target = (reference.field(2, 6, 4, 4, phase) for phase in (1.0, 2.0))
    counted = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    counted[..., 3:] = False
    for pool in (1, 2):
        loss = af_dcd(pool=pool, patch=4, groups=3)
        short = contrast(loss, own[..., :3], target[..., :3])
        assert contrast(loss, own, target, counted).item() == pytest.approx(short.item(), rel=1e-9)
