"""FAKD on PD against Eq. 8 with a tensor pixel x class x class, PD, ISDA, and its own gradients."""

import pytest
import reference
import torch
from material import VOID, build_loss
from reference import golden_inputs, pixel_entropy

from fakd.structures import LossInputs, SegOutput, SegSpec

SPEC = SegSpec(3, 6)
FORMS = {"bound": 1, "tight": 0, "shift": -1}
GOLDEN = {"class": (2.516752, 3.701633, 5.173229), "label": (2.516752, 4.395201, 6.568962)}


def golden_case(progress=0.5):
    """Inputs in which the weight, the feature and the logits are leaves of their own."""
    g = golden_inputs()
    student = SegOutput(
        g.logits.requires_grad_(), g.feature.requires_grad_(), g.weight.requires_grad_(), g.bias
    )
    teacher = SegOutput(g.teacher.requires_grad_(), g.feature.clone().requires_grad_(), g.weight)
    return LossInputs(student, teacher, g.labels, g.valid, progress)


def covariance(inputs):
    return reference.class_statistics(inputs.student.feature.detach(), inputs.labels, 3)[2]


def fakd(**options):
    return build_loss("FAKDPixel", SPEC, SPEC, **{"LAMBDA_SCHEDULE": "constant", **options}).double()


@pytest.mark.parametrize("index, lambda_", enumerate((0.0, 0.5, 1.0)))
@pytest.mark.parametrize("of", GOLDEN)
def test_golden_values(of, index, lambda_, computed_as):
    inputs = golden_case()
    value = fakd(FORM="bound", LAMBDA=lambda_, COVARIANCE_OF=of)(inputs).item()
    value += pixel_entropy(inputs.teacher.logits, 1.0)
    assert value == pytest.approx(GOLDEN[of][index], abs=1e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("of", GOLDEN)
def test_the_bound_equals_the_tensor_of_pixels_by_classes_by_classes(of, masked):
    inputs = golden_case()
    z, t = inputs.student.logits.detach(), inputs.teacher.logits.detach()
    sigma, valid = covariance(inputs), inputs.valid if masked else None
    seen = t if not masked else t.movedim(1, -1)[valid].T[None, :, :, None]
    for tau, lambda_ in ((0.6, 0.4), (3.0, 2.1)):
        loss = fakd(FORM="bound", TAU=tau, LAMBDA=lambda_, COVARIANCE_OF=of, MASK_IGNORED=masked)
        expected = reference.fakd_pixel(
            z, t, inputs.student.weight.detach(), sigma, inputs.labels, tau, lambda_, of, valid
        ) - pixel_entropy(seen, tau)
        assert loss(inputs).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("form", ["tight", "shift"])
def test_the_other_forms_equal_a_loop_over_pixels(form):
    inputs = golden_case()
    q = reference.variance_of_logit(inputs.student.weight.detach(), covariance(inputs))
    for tau, lambda_ in ((0.6, 0.4), (3.0, 2.1)):
        expected = reference.fakd_pixel_by_offset(
            inputs.student.logits.detach(),
            inputs.teacher.logits.detach(),
            q,
            inputs.labels,
            tau,
            lambda_,
            FORMS[form],
        ) - pixel_entropy(inputs.teacher.logits.detach(), tau)
        assert fakd(FORM=form, TAU=tau, LAMBDA=lambda_)(inputs).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("without", ["lambda", "start", "covariance", "labels"])
@pytest.mark.parametrize(
    "form, of", [("bound", "class"), ("bound", "label"), ("tight", "class"), ("shift", "class")]
)
def test_without_augmentation_it_is_pd(form, of, without):
    """Value and gradient, whichever way the augmentation vanishes."""
    options, inputs = {"TAU": 2.0, "FORM": form, "COVARIANCE_OF": of}, golden_case()
    if without == "lambda":
        options["LAMBDA"] = 0.0
    if without == "start":
        options["LAMBDA_SCHEDULE"] = "cosine"
        inputs = golden_case(progress=0.0)
    if without == "labels":
        void = torch.full_like(inputs.labels, VOID)
        inputs = LossInputs(inputs.student, inputs.teacher, void, void != VOID, 0.5)
    loss = fakd(**options)
    if without == "covariance":
        loss.eval()
    value = loss(inputs)
    (gradient,) = torch.autograd.grad(value, inputs.student.logits)
    plain = build_loss("PD", SPEC, SPEC, TAU=2.0)(inputs)
    (expected,) = torch.autograd.grad(plain, inputs.student.logits)
    torch.testing.assert_close(value, plain, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("of", GOLDEN)
def test_a_teacher_sure_of_the_label_makes_it_isda(of):
    """Both readings of the covariance coincide there, with ISDA's augmented cross-entropy."""
    g = golden_inputs()
    labels = g.labels % 3
    teacher = 1e3 * torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).double()
    student = SegOutput(g.logits, g.feature, g.weight, g.bias)
    inputs = LossInputs(student, SegOutput(teacher, g.feature, g.weight), labels, labels < 3, 0.5)
    sigma = reference.class_statistics(g.feature, labels, 3)[2]
    for lambda_ in (0.5, 2.0):
        expected = reference.isda_cross_entropy(g.logits, g.weight, sigma, labels, lambda_)
        value = fakd(FORM="bound", LAMBDA=lambda_, COVARIANCE_OF=of)(inputs).item()
        assert value == pytest.approx(expected, abs=1e-10)


def test_the_bound_grows_with_lambda():
    inputs = golden_case()
    for of in GOLDEN:
        values = [
            fakd(FORM="bound", LAMBDA=x, COVARIANCE_OF=of)(inputs).item() for x in (0, 0.1, 1.0, 2.5, 50.0)
        ]
        assert values == sorted(values)
        assert len(set(values)) == 5


def test_gradients_reach_the_student_alone():
    for form in FORMS:
        for detach in (True, False):
            inputs = golden_case()
            fakd(FORM=form, DETACH_CLASSIFIER=detach)(inputs).backward()
            assert inputs.student.logits.grad.abs().max() > 0
            assert inputs.student.feature.grad is None, "the covariance is constant"
            assert inputs.teacher.logits.grad is None and inputs.teacher.feature.grad is None
            assert (inputs.student.weight.grad is None) == detach


@pytest.mark.parametrize(
    "form, of", [("bound", "class"), ("bound", "label"), ("tight", "class"), ("shift", "class")]
)
def test_classifier_gradient_is_the_numerical_one(form, of):
    """Through the loss as a whole, logits and offsets together; the covariance stays what it is."""
    g = golden_inputs()
    loss = fakd(TAU=2.0, FORM=form, COVARIANCE_OF=of, DETACH_CLASSIFIER=False)
    loss.statistics.update(g.feature, g.labels, g.valid)
    loss.eval()

    def value(weight):
        logits = torch.einsum("ca,nahw->nchw", weight, g.feature)
        student = SegOutput(logits, g.feature, weight)
        return loss(LossInputs(student, SegOutput(g.teacher, g.feature, g.weight), g.labels, g.valid, 0.5))

    assert torch.autograd.gradcheck(value, (g.weight.clone().requires_grad_(),), fast_mode=True)


def test_an_unknown_choice_names_its_key():
    with pytest.raises(ValueError, match="KD.FAKDPixel.COVARIANCE_OF is 'other'.*class, label"):
        fakd(COVARIANCE_OF="other")
