"""FAKD's offset added to the logits of losses that have no closed form of their own."""

from dataclasses import replace

import pytest
import torch
from material import build_loss, draw_labels, loss_inputs, seg_output, seg_spec

SPEC, TEACHER = seg_spec(5, 8), seg_spec(5, 12)
LOSSES = [("PD", {}), ("PD", {"STANDARDIZE": True}), ("DIST", {}), ("DKD", {}), ("JML", {})]
every_loss = pytest.mark.parametrize(("name", "options"), LOSSES)


def inputs(seed=0, progress=0.5, **changes):
    return replace(
        loss_inputs(
            seg_output(SPEC, seed=seed), seg_output(TEACHER, seed=seed + 9), draw_labels(seed=seed), progress
        ),
        **changes,
    )


@every_loss
@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_the_loss_is_that_of_the_augmented_logits(name, options, tau):
    """z_c + lambda(t) w_c' Sigma_y w_c / (2 tau), lambda(t) halfway up the cosine, pixel by pixel."""
    loss = build_loss(name, SPEC, TEACHER, AUGMENT=2.0, TAU=tau, **options)
    plain = build_loss(name, SPEC, TEACHER, TAU=tau, **options)
    loss(inputs(seed=3))  # statistics of one batch
    loss.eval()
    given = inputs()
    weight, sigma = given.student.weight, loss.augmentation.statistics.covariance
    logits = given.student.logits.clone()
    for n, y, x in given.valid.nonzero().tolist():
        own = sigma[given.labels[n, y, x]]
        logits[n, :, y, x] += 1.0 / (2 * tau) * torch.stack([w @ own @ w for w in weight])
    wanted = plain(replace(given, student=replace(given.student, logits=logits)))
    assert loss(given).item() == pytest.approx(wanted.item(), rel=1e-5)
    assert wanted.item() != pytest.approx(plain(given).item(), rel=1e-4)


@every_loss
def test_it_is_off_by_default_and_at_the_start(name, options):
    plain, augmented = (build_loss(name, SPEC, TEACHER, AUGMENT=a, **options) for a in (0.0, 2.0))
    assert plain.augmentation is None and not list(plain.buffers())
    given = inputs(progress=0.0)
    assert plain(given).item() == pytest.approx(augmented(given).item(), rel=1e-6)


def test_pd_with_it_is_fakd_in_the_form_of_shift():
    given = inputs()
    values = [
        build_loss(name, SPEC, TEACHER, TAU=2.0, **options)(given).item()
        for name, options in (("PD", {"AUGMENT": 1.5}), ("FAKDPixel", {"LAMBDA": 1.5, "FORM": "shift"}))
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_pixels_without_a_label_are_left_as_they_are():
    loss = build_loss("PD", SPEC, TEACHER, AUGMENT=2.0)
    loss(inputs())
    void = inputs(valid=torch.zeros(2, 9, 11, dtype=torch.bool))
    plain = build_loss("PD", SPEC, TEACHER)
    assert loss(void).item() == pytest.approx(plain(void).item(), rel=1e-6)


def test_no_gradient_reaches_the_classifier_through_the_offset():
    loss, given = build_loss("PD", SPEC, TEACHER, AUGMENT=2.0), inputs()
    loss(given)
    fixed = replace(given.student, logits=given.student.logits.detach())
    value = loss(replace(given, student=fixed))
    assert not value.requires_grad
