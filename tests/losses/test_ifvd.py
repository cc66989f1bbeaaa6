"""IFVD against a loop over images and classes."""

import pytest
import torch
import torch.nn.functional as F
from material import VOID, build_loss
from reference import field

from fakd.functional import relation
from fakd.functional.relation import centre_similarity
from fakd.functional.resize import resize_labels
from fakd.structures import LossInputs, SegOutput, SegSpec

SPEC = SegSpec(3, 3)


def golden_labels():
    n, h, w = torch.meshgrid(torch.arange(2), torch.arange(8), torch.arange(10), indexing="ij")
    labels = (n + h // 3 + w // 4) % 3
    labels[0, 0, 0:2] = labels[1, 6:8, 8:10] = VOID
    return resize_labels(labels, (4, 5))


def value(student, teacher, labels, num_classes=3, **options):
    # Only the class count is read off the logits.
    logits = student.new_zeros(len(student), num_classes, *student.shape[2:])
    outputs = [SegOutput(logits, x, x.new_zeros(num_classes, x.shape[1])) for x in (student, teacher)]
    loss = build_loss(
        "IFVD", SegSpec(num_classes, student.shape[1]), SegSpec(num_classes, teacher.shape[1]), **options
    )
    return loss(LossInputs(*outputs, labels, labels != VOID))


def cosines(feature, labels, num_classes):
    """One image and one class at a time, the void pixels 1."""
    result = torch.ones_like(feature[:, 0])
    for n in range(len(feature)):
        for k in range(num_classes):
            here = labels[n] == k
            if here.any():
                pixels = feature[n][:, here]
                centre = pixels.sum(1, keepdim=True) / (here.sum() + 1e-6)
                result = result.index_put(
                    (torch.tensor(n), *here.nonzero(as_tuple=True)), F.cosine_similarity(pixels, centre, 0)
                )
    return result


def drawn(seed, channels=7, n=3, size=(6, 5)):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, channels, *size, generator=g, dtype=torch.float64)


def drawn_labels(num_classes=4, n=3, size=(6, 5)):
    g = torch.Generator().manual_seed(5)
    labels = torch.randint(0, num_classes, (n, *size), generator=g)
    labels[torch.rand(n, *size, generator=g) < 0.2] = VOID
    return labels


@pytest.mark.parametrize("masked, expected", [(False, 0.0434575445), (True, 0.0457447837)])
def test_golden_values(masked, expected):
    got = value(field(2, 3, 4, 5, 2.0), field(2, 3, 4, 5, 3.0), golden_labels(), MASK_IGNORED=masked)
    assert got.item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("cpu", [True, False], ids=["image by image", "the batch at once"])
@pytest.mark.parametrize("block", [relation.CPU_BLOCK, 20])
def test_value_and_gradient_of_the_loop(monkeypatch, cpu, block):
    monkeypatch.setattr(relation, "CPU_BLOCK", block)
    if not cpu:
        monkeypatch.setattr(relation, "_images", lambda feature: [slice(0, len(feature))])
    student, teacher, labels = drawn(0).requires_grad_(), drawn(1, 9), drawn_labels()
    got = value(student, teacher, labels, 4)
    expected = (cosines(student, labels, 4) - cosines(teacher, labels, 4)).square().mean()
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    gradients = [torch.autograd.grad(x, student)[0] for x in (got, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-12)


def test_the_gradient_passes_the_means():
    feature, labels = drawn(0, 3, 2, (3, 3)).requires_grad_(), drawn_labels(2, 2, (3, 3))
    labels = labels.where(labels != VOID, 2)
    assert torch.autograd.gradcheck(lambda x: centre_similarity(x, labels, 2), feature)


def test_maps_in_channels_last_give_the_same():
    student, teacher, labels = drawn(0), drawn(1), drawn_labels()
    last = student.contiguous(memory_format=torch.channels_last).requires_grad_()
    first = student.requires_grad_()
    for x in (last, first):
        value(x, teacher, labels, 4).backward()
    torch.testing.assert_close(last.grad, first.grad)


def test_names_of_classes_do_not_matter_but_the_image_of_a_label_does():
    student, teacher, labels = drawn(0), drawn(1), drawn_labels()
    renamed = torch.where(labels == VOID, VOID, (labels + 1) % 4)
    plain = value(student, teacher, labels, 4)
    torch.testing.assert_close(value(student, teacher, renamed, 4), plain)
    torch.testing.assert_close(value(student, teacher, labels, 150), plain)
    assert abs(value(student, teacher, labels.flip(0), 4) - plain) > 1e-4


@pytest.mark.parametrize("masked", [True, False])
def test_without_labels_it_is_zero_with_a_gradient(masked):
    student = drawn(0).requires_grad_()
    labels = torch.full((3, 6, 5), VOID)
    got = value(student, drawn(1), labels, 4, MASK_IGNORED=masked)
    got.backward()
    assert got.item() == 0 and not student.grad.any()


def test_a_pixel_without_a_feature_is_harmless():
    student = torch.zeros(3, 7, 6, 5, dtype=torch.float64, requires_grad=True)
    got = value(student, drawn(1), drawn_labels(), 4)
    got.backward()
    assert got.isfinite() and student.grad.isfinite().all()
