"""The loss of the study of FAKD: each choice against its formula."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import reference
import torch
from material import build_loss, draw_labels, loss_inputs, seg_output, seg_spec

from fakd.losses.base import options_of
from fakd.registry import DISTILL_LOSS_REGISTRY

FILE = Path(__file__).parents[2] / "projects" / "FAKD" / "study" / "fakd_study.py"
SPEC = seg_spec()


@pytest.fixture(scope="module")
def study():
    """``study(inputs, OPTION=...)``: the loss after one step on the inputs, its value, and its offsets v."""
    spec = importlib.util.spec_from_file_location("fakd_study", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    kind = module.FAKDStudy
    del DISTILL_LOSS_REGISTRY._obj_map["FAKDStudy"]  # other tests look at the library's losses alone

    def run(given, student=SPEC, teacher=SPEC, **options):
        options = {"LAMBDA_SCHEDULE": "constant", **options}
        values = {name: options.get(name, default) for name, default in options_of(kind).items()}
        fields = {name.lower() + "_" * (name == "LAMBDA"): value for name, value in values.items()}
        loss = kind(kind.Config(**fields), student, teacher).double()
        tables, offsets = [], loss.offsets
        loss.offsets = lambda *args: tables.append(offsets(*args)) or tables[-1]
        return loss, loss(given), tables[0].detach()

    return run


@pytest.fixture
def given():
    labels = draw_labels(2, void=0.2)
    return loss_inputs(
        seg_output(SPEC, seed=1, dtype=torch.float64), seg_output(SPEC, seed=2, dtype=torch.float64), labels
    )


def sigma(feature, inputs):
    return reference.class_statistics(feature.detach(), inputs.labels, SPEC.num_classes)[2]


def table(weight, covariance):
    return reference.variance_of_logit(weight.detach(), covariance)


def test_its_defaults_are_the_librarys_loss(study, given):
    library = build_loss("FAKDChannel", SPEC, SPEC, LAMBDA_SCHEDULE="constant").double()
    assert study(given)[1].item() == library(given).item()


def test_the_unit_is_the_mean_offset(study, given):
    q = table(given.student.weight, sigma(given.student.feature, given))
    for lambda_ in (0.25, 2.0):
        v = study(given, LAMBDA_UNIT="offset", LAMBDA=lambda_, TAU=4.0)[2]
        torch.testing.assert_close(v, lambda_ * q / q.mean())


def test_relative_offsets_leave_the_pixels_own_class_alone(study, given):
    q = table(given.student.weight, sigma(given.student.feature, given))
    v = study(given, OFFSET="relative")[2]
    torch.testing.assert_close(v, (q - q.diagonal()[None]) / 2)
    assert v.diagonal().abs().max() == 0


def test_variances_of_a_teacher_of_any_width(study):
    wide = seg_spec(channels=11)
    inputs = loss_inputs(
        seg_output(SPEC, seed=1, dtype=torch.float64),
        seg_output(wide, seed=2, dtype=torch.float64),
        draw_labels(2),
    )
    v = study(inputs, teacher=wide, SPACE="teacher")[2]
    q = table(inputs.teacher.weight, sigma(inputs.teacher.feature, inputs))
    torch.testing.assert_close(v, q / 2)


def test_a_teacher_of_another_grid_is_refused(study, given):
    other = loss_inputs(given.student, seg_output(SPEC, size=(5, 6), dtype=torch.float64), given.labels)
    with pytest.raises(ValueError, match="SPACE teacher"):
        study(other, SPACE="teacher")


def test_the_part_within_images(study, given):
    expected = torch.zeros(SPEC.num_classes, SPEC.feature_channels, SPEC.feature_channels).double()
    for y in range(SPEC.num_classes):
        rows = []
        for x, labels in zip(given.student.feature, given.labels, strict=True):
            if (mask := labels == y).any():
                own = x[:, mask].T
                rows.append(own - own.mean(0))
        if rows:
            expected[y] = torch.cat(rows).T @ torch.cat(rows) / len(torch.cat(rows))
    v = study(given, PART="within")[2]
    torch.testing.assert_close(v, table(given.student.weight, expected) / 2)


def test_the_last_batch_with_the_class(study, given):
    loss = study(given, OVER="batch")[0]
    first = loss.statistics.covariance.clone()
    only_one = loss_inputs(
        seg_output(SPEC, seed=5, dtype=torch.float64), given.teacher, torch.ones_like(given.labels)
    )
    loss(only_one)
    expected = sigma(only_one.student.feature, only_one)
    torch.testing.assert_close(loss.statistics.covariance[1], expected[1])
    torch.testing.assert_close(loss.statistics.covariance[0], first[0])


def test_covariances_of_rare_classes_are_shrunk(study, given):
    full = sigma(given.student.feature, given)
    count = torch.bincount(given.labels[given.valid], minlength=SPEC.num_classes)
    share = (50 / (50 + count))[:, None, None]
    shrunk = (1 - share) * full + share * torch.diag_embed(full.diagonal(dim1=1, dim2=2))
    v = study(given, SHRINKAGE=50.0)[2]
    torch.testing.assert_close(v, table(given.student.weight, shrunk) / 2)


@pytest.mark.parametrize("gradient", ["none", "all", "direction"])
def test_the_gradient_into_the_classifier(study, given, gradient):
    weight = given.student.weight.detach().clone().requires_grad_()  # no part of the logits
    given = replace(given, student=replace(given.student, weight=weight))
    value = study(given, GRADIENT=gradient)[1]
    if gradient == "none":
        assert not value.requires_grad or torch.autograd.grad(value, weight, allow_unused=True)[0] is None
    else:
        slope = torch.autograd.grad(value, weight)[0]
        along = (slope * weight).sum(1).abs().max()
        assert (along < 1e-12) == (gradient == "direction") and slope.abs().max() > 1e-6
