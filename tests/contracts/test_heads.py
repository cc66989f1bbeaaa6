"""What every registered decode head keeps, whoever wrote it. A new head is covered without an edit."""

import pytest
import torch
from material import small_segmentor

from fakd.registry import DECODE_HEAD_REGISTRY
from fakd.structures import SegOutput

HEADS = dict(DECODE_HEAD_REGISTRY)
A, K = 12, 5


@pytest.fixture(params=HEADS)
def segmentor(request):
    return small_segmentor(channels=A, num_classes=K, head=request.param)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (57, 83), (96, 33)])
def test_scores_are_linear_in_the_feature_beside_them(segmentor, size, training):
    """Losses that reason about the classifier rely on it, also under dropout and at odd sizes."""
    segmentor.train(training)
    output = segmentor.encode_normalized(torch.randn(3, 3, *size))
    assert isinstance(output, SegOutput)
    n, a, h, w = output.feature.shape
    assert (n, a) == (3, A) and output.weight.shape == (K, A) and output.bias.shape == (K,)
    assert output.logits.shape == (3, K, h, w)
    expected = torch.einsum("ka,nahw->nkhw", output.weight, output.feature) + output.bias[:, None, None]
    torch.testing.assert_close(output.logits, expected, rtol=1e-4, atol=1e-5)
    # The maps are the backbone's, at the stride of one of them: nothing is up-sampled to the image.
    assert (h, w) in {tuple(x.shape[-2:]) for x in output.stages.values()}
    assert (output.aux_logits is not None) == training
    assert segmentor.spec.feature_channels == A and segmentor.spec.num_classes == K


def test_dropout_is_before_the_feature(segmentor):
    """In training whole channels of the very feature that is returned are zero."""
    segmentor.decode_head.dropout.p = 0.5
    with torch.no_grad():
        feature = segmentor.encode_normalized(torch.randn(4, 3, 64, 64)).feature
    assert (feature.flatten(2) == 0).all(2).float().mean() > 0.2


def test_a_gradient_reaches_every_parameter(segmentor):
    output = segmentor.encode_normalized(torch.randn(3, 3, 65, 65))
    (output.logits * torch.randn_like(output.logits)).sum().backward()
    for name, p in segmentor.decode_head.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.any(), name


def test_channels_last_is_the_same_network(segmentor):
    """Its maps lie otherwise in memory, and what losses read lies as ever."""
    images = torch.randn(3, 3, 64, 64)
    other = small_segmentor(
        channels=A, num_classes=K, head=type(segmentor.decode_head).__name__, channels_last=True
    )
    other.load_state_dict(segmentor.state_dict())
    for module in [*segmentor.modules(), *other.modules()]:
        if hasattr(module, "p"):
            module.p = 0.0
    expected, found = segmentor.encode_normalized(images), other.encode_normalized(images)
    assert found.stages["res3"].is_contiguous(memory_format=torch.channels_last)
    for name in ("logits", "feature", "aux_logits"):
        assert getattr(found, name).is_contiguous()
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-3, atol=1e-4)


def test_the_classifier_is_live(segmentor):
    """Gradients and updates go through ``SegOutput.weight``, which is no copy."""
    output = segmentor.encode_normalized(torch.randn(3, 3, 64, 64))
    output.weight.sum().backward()
    weight = segmentor.decode_head.conv_seg.weight
    assert torch.equal(weight.grad, torch.ones_like(weight))
    assert output.weight.data_ptr() == weight.data_ptr()


def test_evaluation_is_deterministic_and_independent_of_the_batch(segmentor):
    segmentor.eval()
    x = torch.randn(2, 3, 64, 72)
    with torch.no_grad():
        both = segmentor.encode_normalized(x).logits
        assert torch.equal(both, segmentor.encode_normalized(x).logits)
        torch.testing.assert_close(both[:1], segmentor.encode_normalized(x[:1]).logits, rtol=1e-4, atol=1e-5)
