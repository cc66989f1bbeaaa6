"""Both divergences against loops over pixels, in every layout and partition."""

import math

import pytest
import reference
import torch
from reference import channel_entropy, pixel_entropy

from fakd.functional import divergence
from fakd.functional.divergence import Offset, blocks, channel_kl, pixel_kl, softmax_kl

GOLDEN = {
    (pixel_kl, 1): 0.6511114964,
    (pixel_kl, 4): 1.2772081197,
    (channel_kl, 1): 0.7359067293,
    (channel_kl, 4): 1.3939159030,
}
LOOPS = {pixel_kl: reference.pd, channel_kl: reference.cwd}
OVER = {"classes": pixel_kl, "pixels": channel_kl}


def random_case(n=2, k=4, h=3, w=5, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    z, t = (2 * torch.randn(n, k, h, w, generator=g, dtype=torch.float64) for _ in range(2))
    valid = torch.rand(n, h, w, generator=g) > 0.3
    return z.to(dtype), t.to(dtype), valid


def test_the_golden_fields_are_the_documented_ones(golden):
    assert golden.student[0, 0, 0, 0].item() == pytest.approx(1.8185948537, abs=1e-9)
    assert golden.teacher[1, 2, 3, 4].item() == pytest.approx(2.6368118370, abs=1e-9)


@pytest.mark.parametrize("loss, tau", GOLDEN)
def test_golden_values(golden, loss, tau, computed_as):
    value = loss(golden.student.flatten(2), golden.teacher.flatten(2), tau).item()
    assert value == pytest.approx(GOLDEN[loss, tau], abs=1e-9)
    assert LOOPS[loss](golden.student, golden.teacher, tau) == pytest.approx(GOLDEN[loss, tau], abs=1e-9)


def test_golden_values_of_other_reductions_differ_by_what_is_documented(golden):
    """Cross-entropy forms are the KL forms plus the teacher's entropy; other papers divide differently."""
    s, t = golden.student.flatten(2), golden.teacher.flatten(2)
    for tau, cross_entropy in ((1, 2.9014475897), (4, 47.4833319063)):
        value = channel_kl(s, t, tau).item() + channel_entropy(golden.teacher, tau)
        assert value == pytest.approx(cross_entropy, abs=1e-8)
    # SKDS sums over the images too; IFVD takes the mean over the 3 classes as well.
    skds = 2 * (pixel_kl(s, t).item() + pixel_entropy(golden.teacher, 1))
    assert skds == pytest.approx(2.1537296509, abs=1e-9)
    assert pixel_kl(s, t).item() / 3 == pytest.approx(0.2170371655, abs=1e-9)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("loss", LOOPS)
def test_equals_a_loop_over_pixels(loss, masked, computed_as):
    for seed, tau in enumerate((0.5, 1.0, 3.0)):
        z, t, valid = random_case(seed=seed)
        valid = valid if masked else None
        value = loss(z.flatten(2), t.flatten(2), tau, None if valid is None else valid.flatten(1))
        assert value.item() == pytest.approx(LOOPS[loss](z, t, tau, valid), abs=1e-10)


@pytest.mark.parametrize("loss", LOOPS)
def test_memory_layout_does_not_matter(loss, computed_as):
    z, t, valid = random_case(n=3)
    expected = loss(z.flatten(2), t.flatten(2), 2.0, valid.flatten(1)).item()
    last = torch.channels_last
    for a, b in ((last, torch.contiguous_format), (torch.contiguous_format, last), (last, last)):
        leaf = z.clone(memory_format=a).requires_grad_()
        value = loss(leaf.flatten(2), t.clone(memory_format=b).flatten(2), 2.0, valid.flatten(1))
        assert value.item() == pytest.approx(expected, rel=1e-12)
        value.backward()
        other = z.clone().requires_grad_()
        loss(other.flatten(2), t.flatten(2), 2.0, valid.flatten(1)).backward()
        torch.testing.assert_close(leaf.grad, other.grad)


@pytest.mark.parametrize("loss", LOOPS)
def test_zero_with_zero_gradient_for_equal_logits(loss, computed_as):
    z, _, _ = random_case()
    leaf = z.clone().requires_grad_()
    value = loss(leaf.flatten(2), z.flatten(2), 4.0)
    value.backward()
    assert abs(value.item()) < 1e-12
    assert leaf.grad.abs().max() < 1e-12


def test_constants_per_pixel_and_per_channel():
    """PD does not see a constant added at a pixel, CWD one added to a channel; each sees the other's."""
    z, t, _ = random_case()
    per_pixel, per_channel = z + torch.randn(2, 1, 3, 5).double(), z + torch.randn(2, 4, 1, 1).double()
    for loss, blind, seen in ((pixel_kl, per_pixel, per_channel), (channel_kl, per_channel, per_pixel)):
        value = loss(z.flatten(2), t.flatten(2), 2.0).item()
        assert loss(blind.flatten(2), t.flatten(2), 2.0).item() == pytest.approx(value, abs=1e-10)
        assert abs(loss(seen.flatten(2), t.flatten(2), 2.0).item() - value) > 1e-2


@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_gradients_are_the_analytic_ones(tau, computed_as):
    z, t, _ = random_case()
    n, k, m = z.flatten(2).shape
    for loss, dim, scale in ((pixel_kl, 1, tau / (n * m)), (channel_kl, 2, tau / (n * k))):
        leaf = z.flatten(2).requires_grad_()
        loss(leaf, t.flatten(2), tau).backward()
        p, q = (t.flatten(2) / tau).softmax(dim), (z.flatten(2) / tau).softmax(dim)
        torch.testing.assert_close(leaf.grad, scale * (q - p), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("loss", LOOPS)
def test_tiled_maps_and_repeated_images_cost_the_same(loss):
    z, t, _ = random_case()
    value = loss(z.flatten(2), t.flatten(2), 3.0).item()
    for repeat in ((1, 1, 2, 2), (3, 1, 1, 1)):
        again = loss(z.repeat(repeat).flatten(2), t.repeat(repeat).flatten(2), 3.0).item()
        assert again == pytest.approx(value, abs=1e-10)


@pytest.mark.parametrize("loss", LOOPS)
def test_images_do_not_mix(loss):
    z, t, _ = random_case(n=2)
    z, t = z.flatten(2), t.flatten(2)
    halves = [loss(z[i : i + 1], t[i : i + 1], 2.0).item() for i in range(2)]
    assert loss(z, t, 2.0).item() == pytest.approx(sum(halves) / 2, abs=1e-12)


def test_large_temperatures_tend_to_half_the_variance_of_the_difference():
    z, t, _ = random_case()
    z, t = z.flatten(2), t.flatten(2)
    limit = ((z - t).var(1, unbiased=False) / 2).mean().item()
    assert pixel_kl(z, t, 1e3).item() == pytest.approx(limit, rel=1e-2)
    assert pixel_kl(z, t, 1e3).item() == pytest.approx(pixel_kl(z, t, 3e3).item(), rel=1e-2)
    limit = ((z - t).var(2, unbiased=False) / 2).mean().item()
    assert channel_kl(z, t, 1e3).item() == pytest.approx(limit, rel=1e-2)


@pytest.mark.parametrize("loss", LOOPS)
def test_extreme_logits_stay_finite(loss, computed_as):
    z, t, valid = random_case(dtype=torch.float32)
    z, t = 300 * z.sign(), 300 * t.sign()
    leaf = z.flatten(2).requires_grad_()
    value = loss(leaf, t.flatten(2), 1.0, valid.flatten(1))
    value.backward()
    assert value.isfinite() and value > 100
    assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOOPS)
def test_masked_pixels_have_no_say_and_no_gradient(loss, computed_as):
    z, t, valid = random_case()
    valid[0] = False  # an image without a single labelled pixel
    hidden = (~valid)[:, None]
    leaf = z.clone().requires_grad_()
    value = loss(leaf.flatten(2), t.flatten(2), 2.0, valid.flatten(1))
    value.backward()
    other = loss((z + 7 * hidden).flatten(2), (t - 50 * hidden).flatten(2), 2.0, valid.flatten(1))
    assert other.item() == pytest.approx(value.item(), abs=1e-12)
    assert leaf.grad.masked_select(hidden).abs().max() == 0
    assert leaf.grad.abs().max() > 0


@pytest.mark.parametrize("loss", LOOPS)
def test_nothing_but_void_is_zero_with_a_gradient(loss, computed_as):
    z, t, valid = random_case()
    leaf = z.clone().requires_grad_()
    value = loss(leaf.flatten(2), t.flatten(2), 2.0, torch.zeros_like(valid).flatten(1))
    value.backward()
    assert value.item() == 0
    assert torch.equal(leaf.grad, torch.zeros_like(z))


@pytest.mark.parametrize("form, own", [("bound", 1), ("tight", 0), ("shift", -1)])
def test_offsets_over_pixels_equal_the_pairwise_sum(form, own, computed_as):
    z, t, valid = random_case(k=3)
    g = torch.Generator().manual_seed(3)
    q = torch.rand(3, 3, generator=g, dtype=torch.float64)
    labels = torch.randint(0, 3, valid.shape, generator=g).where(valid, 3)
    tau = 2.0
    table = torch.cat([q, q.new_zeros(3, 1)], 1) / (2 * tau**2)
    total = softmax_kl(
        z.flatten(2), t.flatten(2), tau, "pixels", None, Offset(table, labels.flatten(1), form)
    )
    expected = reference.fakd_channel(z, t, q, labels, tau, 1.0, own) - channel_entropy(t, tau)
    assert (tau**2 * total / (z.shape[0] * 3)).item() == pytest.approx(expected, abs=1e-10)
    # Masked pixels are as if they were not there.
    image, mask = slice(0, 1), valid[0].flatten()
    masked = softmax_kl(
        z[image].flatten(2),
        t[image].flatten(2),
        tau,
        "pixels",
        valid[image].flatten(1),
        Offset(table, labels[image].flatten(1), form),
    )
    few = [x[image].flatten(2)[..., mask][:, :, None] for x in (z, t)]
    seen = labels[image].flatten(1)[:, mask][:, None]
    expected = reference.fakd_channel(*few, q, seen, tau, 1.0, own) - channel_entropy(few[1], tau)
    assert (tau**2 * masked / 3).item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("form, own", [("bound", 1), ("tight", 0), ("shift", -1)])
def test_offsets_over_classes_equal_a_loop(form, own, computed_as):
    z, t, valid = random_case(k=3)
    g = torch.Generator().manual_seed(3)
    q = torch.rand(3, 3, generator=g, dtype=torch.float64)
    labels = torch.randint(0, 3, valid.shape, generator=g).where(valid, 3)
    table = torch.cat([q, q.new_zeros(3, 1)], 1) / 8
    total = softmax_kl(
        z.flatten(2), t.flatten(2), 2.0, "classes", None, Offset(table, labels.flatten(1), form)
    )
    expected = reference.fakd_pixel_by_offset(z, t, q, labels, 2.0, 1.0, own) - pixel_entropy(t, 2.0)
    assert (4 * total / labels.numel()).item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("form", divergence.FORMS)
@pytest.mark.parametrize("over", OVER)
def test_gradients_pass_the_numerical_check(over, form, masked, computed_as):
    z, t, valid = random_case(h=2, w=3)
    g = torch.Generator().manual_seed(5)
    table = torch.rand(4, 3, generator=g, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 3, (2, 6), generator=g)
    valid[1] = False  # an image without a single pixel that counts
    mask = valid.flatten(1) if masked else None

    def loss(student, table):
        offset = Offset(table, labels, form)
        return 1.7 * softmax_kl(student, t.flatten(2), 1.5, over, mask, offset)

    inputs = (z.flatten(2).requires_grad_(), table)
    assert torch.autograd.gradcheck(loss, inputs, fast_mode=True)


def test_only_the_student_and_the_offsets_get_gradients(computed_as):
    z, t, _ = random_case()
    student, teacher = z.flatten(2).requires_grad_(), t.flatten(2).requires_grad_()
    softmax_kl(student, teacher, 1.0, "classes").backward()
    assert student.grad is not None and teacher.grad is None
    # A table alone is enough, and then no gradient of the logits is made.
    table = torch.rand(4, 2, dtype=torch.float64, requires_grad=True)
    offset = Offset(table, torch.zeros(2, 15, dtype=torch.long), "bound")
    softmax_kl(z.flatten(2), t.flatten(2), 1.0, "pixels", None, offset).backward()
    assert table.grad[:, 0].abs().min() > 0
    assert table.grad[:, 1].abs().max() == 0


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("size", [1, 8, 50, 1 << 16])
def test_blocks_cover_every_element_once_and_split_no_softmax(over, size, monkeypatch):
    monkeypatch.setattr(divergence, "CPU_BLOCK", size)
    shape = torch.Size((2, 5, 12))
    seen = torch.zeros(shape)
    for ns, ks, ms in blocks(shape, torch.device("cpu"), over):
        part = seen[ns, ks, ms]
        part += 1
        assert part.shape[1 if over == "classes" else 2] == shape[1 if over == "classes" else 2]
        whole = part.shape[1 if over == "classes" else 2]
        assert part.numel() <= max(size, whole)
    assert torch.equal(seen, torch.ones(shape))


def test_another_device_gets_one_block():
    slices = list(blocks(torch.Size((2, 5, 12)), torch.device("cuda"), "pixels"))
    assert slices == [(slice(0, 2), slice(0, 5), slice(0, 12))]


def test_float32_is_accurate_on_large_maps():
    z, t, _ = random_case(n=1, k=3, h=128, w=128)
    for loss in LOOPS:
        exact = loss(z.flatten(2), t.flatten(2), 4.0).item()
        value = loss(z.float().flatten(2), t.float().flatten(2), 4.0)
        assert value.dtype == torch.float32
        assert math.isclose(value.item(), exact, rel_tol=1e-5)
