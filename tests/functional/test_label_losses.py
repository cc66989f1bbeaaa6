"""Losses in strips equal those of the up-sampled scores, gradient included, and never hold them."""

import pytest
import torch
import torch.nn.functional as F

from fakd.functional.label_losses import hardest_labels, upsampled_cross_entropy, upsampled_jaccard

IGNORE = 255


def upsampled(logits, labels, align_corners):
    return F.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=align_corners)


def literal(logits, labels, align_corners, weight=None):
    scores = upsampled(logits, labels, align_corners)
    return F.cross_entropy(scores, labels, weight, ignore_index=IGNORE, reduction="sum")


def literal_jaccard(logits, labels, align_corners, smooth):
    p = upsampled(logits, labels, align_corners).softmax(1)
    losses = []
    for c in labels[labels != IGNORE].unique().tolist():
        of_class, valid = labels == c, labels != IGNORE
        hits, either = p[:, c][of_class].sum(), p[:, c][valid].sum() + of_class.sum()
        losses.append(1 - (hits + smooth) / (either - hits + smooth))
    return sum(losses) / len(losses)


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
    value = upsampled_cross_entropy(logits, labels, IGNORE, align_corners, strip_bytes=strip_bytes)
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


@pytest.mark.parametrize("strip_bytes", [1, None])
def test_class_weights_are_torchs(strip_bytes):
    logits, labels = example(2, 5, (4, 5), (16, 20))
    weight = torch.tensor([0.5, 2, 0, 1, 3], dtype=torch.float64)
    value = upsampled_cross_entropy(logits, labels, weight=weight, strip_bytes=strip_bytes)
    expected = literal(logits, labels, False, weight)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*[torch.autograd.grad(x, logits)[0] for x in (value, expected)])


@pytest.mark.parametrize("strip_bytes", [1, None])
def test_the_hardest_labels_are_those_of_the_largest_losses(strip_bytes):
    logits, labels = example(2, 5, (4, 5), (16, 20))
    losses = F.cross_entropy(upsampled(logits, labels, True), labels, ignore_index=IGNORE, reduction="none")
    kept = hardest_labels(logits, labels, 0.25, IGNORE, True, strip_bytes) != IGNORE
    assert kept.sum() == 0.25 * labels.numel()
    assert losses[kept].min() >= losses[~kept].max()
    torch.testing.assert_close(hardest_labels(logits, labels, 1.0), labels)


def test_void_pixels_are_never_among_the_hardest():
    logits, labels = example(1, 3, (2, 2), (8, 8))
    labels[:, 2:] = IGNORE
    hardest = hardest_labels(logits, labels, 0.5)
    assert (hardest[labels == IGNORE] == IGNORE).all() and (hardest != IGNORE).any()


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("small, large", [((4, 5), (32, 40)), ((5, 3), (33, 17)), ((12, 9), (5, 4))])
@pytest.mark.parametrize("strip_bytes", [1, 3000, None])
def test_jaccard_equals_the_literal_form(align_corners, small, large, strip_bytes):
    logits, labels = example(2, 5, small, large)
    labels[labels == 3] = IGNORE  # a class that the batch lacks
    value = upsampled_jaccard(logits, labels, IGNORE, align_corners, 0.5, strip_bytes)
    expected = literal_jaccard(logits, labels, align_corners, 0.5)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*[torch.autograd.grad(x, logits)[0] for x in (value, expected)])


def test_jaccard_of_sure_predictions_is_one_minus_the_mean_iou():
    labels = torch.tensor([[[0, 0, 1, 1], [0, 2, 2, 1]]])
    predicted = torch.tensor([[[0, 1, 1, 1], [0, 2, 0, 1]]])
    logits = 1e3 * F.one_hot(predicted, 4).permute(0, 3, 1, 2).double()
    iou = torch.tensor([2 / 4, 3 / 4, 1 / 2], dtype=torch.float64)  # class 3 has no label
    torch.testing.assert_close(upsampled_jaccard(logits, labels, smooth=1e-12), 1 - iou.mean())


def test_jaccard_of_void_alone_is_zero_with_gradient():
    logits, labels = example(2, 3, (2, 2), (8, 8))
    value = upsampled_jaccard(logits, torch.full_like(labels, IGNORE))
    value.backward()
    assert value.item() == 0 and logits.grad.abs().max() == 0
