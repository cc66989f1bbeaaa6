"""Cross-entropy in strips equals that of the up-sampled scores, gradient included, and never holds them."""

import pytest
import torch
import torch.nn.functional as F

from fakd.functional.cross_entropy import upsampled_cross_entropy

IGNORE = 255


def literal(logits, labels, align_corners):
    size = labels.shape[-2:]
    scores = F.interpolate(logits, size, mode="bilinear", align_corners=align_corners)
    return F.cross_entropy(scores, labels, ignore_index=IGNORE, reduction="sum")


def example(n, k, small, large, dtype=torch.float64):
    generator = torch.Generator().manual_seed(sum((n, k, *small, *large)))
    logits = 3 * torch.randn(n, k, *small, generator=generator, dtype=dtype)
    labels = torch.randint(k, (n, *large), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = IGNORE
    return logits.requires_grad_(), labels


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    "small, large",
    [((4, 5), (32, 40)), ((5, 3), (33, 17)), ((1, 1), (9, 7)), ((7, 6), (7, 6)), ((12, 9), (5, 4))],
)
@pytest.mark.parametrize("strip_bytes", [1, 3000, None])
def test_equals_the_literal_form(align_corners, small, large, strip_bytes):
    logits, labels = example(2, 5, small, large)
    value = upsampled_cross_entropy(logits, labels, IGNORE, align_corners, strip_bytes)
    expected = literal(logits, labels, align_corners)
    torch.testing.assert_close(value, expected)
    slopes = [torch.autograd.grad(3 * x, logits)[0] for x in (value, expected)]
    torch.testing.assert_close(*slopes)


def test_gradient_by_differences():
    logits, labels = example(1, 3, (2, 3), (5, 6))
    assert torch.autograd.gradcheck(lambda x: upsampled_cross_entropy(x, labels, strip_bytes=100), logits)


def test_large_scores_stay_finite():
    logits, labels = example(1, 4, (3, 3), (12, 12), torch.float32)
    value = upsampled_cross_entropy(logits * 1e4, labels)
    torch.testing.assert_close(value, literal(logits * 1e4, labels, False))


def test_void_pixels_alone_give_zero_with_gradient():
    logits, labels = example(2, 3, (2, 2), (8, 8))
    value = upsampled_cross_entropy(logits, torch.full_like(labels, IGNORE))
    value.backward()
    assert value.item() == 0 and logits.grad.abs().max() == 0


def test_autocast_does_not_lower_the_precision():
    logits, labels = example(1, 4, (3, 3), (12, 12), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        value = upsampled_cross_entropy(logits, labels)
    torch.testing.assert_close(value, literal(logits, labels, False))


def test_no_gradient_is_made_where_none_is_wanted():
    logits, labels = example(1, 4, (3, 3), (12, 12))
    with torch.no_grad():
        assert not upsampled_cross_entropy(logits, labels).requires_grad
    assert not upsampled_cross_entropy(logits.detach(), labels).requires_grad


@pytest.mark.parametrize("label", [4, -1])
def test_unknown_labels_are_refused(label):
    logits, labels = example(1, 4, (3, 3), (12, 12))
    labels[0, 5, 5] = label
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        upsampled_cross_entropy(logits, labels)
