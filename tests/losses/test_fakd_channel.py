"""FAKD on CWD against Eq. 7 pixel by pixel, its reductions to CWD, and its gradients."""

import math

import pytest
import reference
import torch
from material import VOID, build_loss, draw_labels, loss_inputs, seg_output, seg_spec
from reference import channel_entropy, golden_inputs

from fakd.functional.augmentation import logit_variance
from fakd.losses.fakd_channel import FAKDChannel
from fakd.structures import LossInputs, SegOutput, SegSpec

SPEC = SegSpec(3, 6)
OWN = {"bound": 1, "tight": 0, "shift": -1}
GOLDEN = {  # (tau, form, variance): cross-entropy form at lambda 0, 0.5, 1
    (1.0, "bound", "exact"): (4.524767, 6.221455, 8.102335),
    (1.0, "tight", "exact"): (4.524767, 5.461891, 6.583208),
    (4.0, "bound", "exact"): (50.696869, 52.459768, 54.236642),
    (4.0, "tight", "exact"): (50.696869, 51.570949, 52.459004),
    (4.0, "bound", "paper"): (50.696869, 57.832462, 65.191610),
}


def golden_case(progress=0.5):
    """Inputs in which the weight, the feature and the logits are leaves of their own."""
    g = golden_inputs()
    student = SegOutput(
        g.logits.requires_grad_(), g.feature.requires_grad_(), g.weight.requires_grad_(), g.bias
    )
    teacher = SegOutput(g.teacher.requires_grad_(), g.feature.clone().requires_grad_(), g.weight)
    return LossInputs(student, teacher, g.labels, g.valid, progress)


def fakd(**options):
    options = {"LAMBDA_SCHEDULE": "constant", "TAU": 1.0, **options}
    return build_loss("FAKDChannel", SPEC, SPEC, **options).double()


@pytest.mark.parametrize("index, lambda_", enumerate((0.0, 0.5, 1.0)))
@pytest.mark.parametrize("tau, form, variance", GOLDEN)
def test_golden_values(tau, form, variance, index, lambda_):
    loss = fakd(TAU=tau, LAMBDA=lambda_, FORM=form, VARIANCE=variance)
    inputs = golden_case()
    value = loss(inputs).item() + channel_entropy(inputs.teacher.logits, tau)
    assert value == pytest.approx(GOLDEN[tau, form, variance][index], abs=2e-6)


@pytest.mark.parametrize("offset", ["variance", "margin"])
@pytest.mark.parametrize("form", OWN)
def test_equals_the_sum_over_pairs_of_pixels(form, offset):
    inputs = golden_case()
    _, _, sigma = reference.class_statistics(inputs.student.feature.detach(), inputs.labels, 3)
    weight = inputs.student.weight.detach()
    table = reference.variance_of_logit(weight, sigma)
    if offset == "margin":  # [channel, label]: the lead of a channel over the pixel's own class
        table = torch.stack([reference.variance_of_margin(weight, sigma, y)[y] for y in range(3)], 1)
    for tau, lambda_ in ((0.7, 0.3), (2.5, 1.9)):
        loss = fakd(TAU=tau, LAMBDA=lambda_, FORM=form, OFFSET=offset)
        expected = reference.fakd_channel(
            inputs.student.logits, inputs.teacher.logits, table, inputs.labels, tau, lambda_, OWN[form]
        ) - channel_entropy(inputs.teacher.logits, tau)
        assert loss(inputs).item() == pytest.approx(expected, abs=1e-9)


def test_diagonal_covariance():
    inputs = golden_case()
    _, _, sigma = reference.class_statistics(inputs.student.feature.detach(), inputs.labels, 3)
    sigma = torch.diag_embed(sigma.diagonal(dim1=1, dim2=2))
    q = reference.variance_of_logit(inputs.student.weight.detach(), sigma)
    expected = reference.fakd_channel(
        inputs.student.logits, inputs.teacher.logits, q, inputs.labels, 1.0, 1.0
    ) - channel_entropy(inputs.teacher.logits, 1.0)
    loss = fakd(FORM="bound", COVARIANCE="diagonal")
    assert loss.statistics.covariance.shape == (3, 6)
    assert loss(inputs).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("without", ["lambda", "start", "covariance", "labels"])
@pytest.mark.parametrize("form", OWN)
def test_without_augmentation_it_is_cwd(form, without):
    """Value and gradient, whichever way the augmentation vanishes."""
    options = {"TAU": 4.0, "FORM": form}
    inputs = golden_case()
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
        loss.eval()  # no update: nothing has been seen
    value = loss(inputs)
    (gradient,) = torch.autograd.grad(value, inputs.student.logits)
    plain = build_loss("CWD", SPEC, SPEC, TAU=4.0)(inputs)
    (expected,) = torch.autograd.grad(plain, inputs.student.logits)
    assert torch.equal(value, plain)
    assert torch.equal(gradient, expected)


def test_paper_variance_is_the_exact_one_at_tau_times_lambda():
    inputs, tau = golden_case(), 4.0
    paper = fakd(TAU=tau, LAMBDA=0.25, VARIANCE="paper", FORM="bound")(inputs).item()
    assert paper == pytest.approx(fakd(TAU=tau, LAMBDA=1.0, FORM="bound")(inputs).item(), abs=1e-10)
    # For tau = 1 the printed and the right form are one.
    exact = fakd(FORM="bound")(inputs).item()
    assert fakd(FORM="bound", VARIANCE="paper")(inputs).item() == exact


def test_the_bound_grows_with_lambda_and_is_above_the_tight_form():
    inputs = golden_case()
    for tau in (1.0, 4.0):
        values = {
            form: [fakd(TAU=tau, LAMBDA=x, FORM=form)(inputs).item() for x in (0.0, 0.25, 1.0, 2.5)]
            for form in ("tight", "bound")
        }
        assert values["bound"] == sorted(values["bound"])
        assert all(a <= b for a, b in zip(values["tight"], values["bound"], strict=True))
        assert values["tight"][1:] < values["bound"][1:]


def test_statistics_take_in_the_batch_before_the_loss_and_only_in_training():
    inputs = golden_case()
    loss = fakd(FORM="bound")
    first = loss(inputs).item()
    assert loss.statistics.count.tolist() == [11, 14, 13]
    # The same batch again leaves mean and covariance as they are, so the first loss had seen them.
    assert loss(inputs).item() == pytest.approx(first, abs=1e-10)
    assert loss.statistics.count.tolist() == [22, 28, 26]
    loss.eval()
    loss(inputs)
    assert loss.statistics.count.tolist() == [22, 28, 26]


def test_void_pixels_are_not_augmented_but_stay_in_the_softmax_unless_masked():
    inputs = golden_case()
    void = (~inputs.valid)[:, None]
    for masked in (False, True):
        loss = fakd(MASK_IGNORED=masked)
        (gradient,) = torch.autograd.grad(loss(inputs), inputs.student.logits)
        assert (gradient.masked_select(void) != 0).any() == (not masked)


@pytest.mark.parametrize("tau", [1.0, 4.0])
@pytest.mark.parametrize("form", OWN)
def test_logit_gradient_is_the_analytic_one_and_the_same_in_every_form(form, tau):
    inputs = golden_case()
    loss = fakd(TAU=tau, FORM=form)
    (gradient,) = torch.autograd.grad(loss(inputs), inputs.student.logits)
    q = logit_variance(inputs.student.weight.detach(), loss.statistics.covariance)
    v = torch.cat([q, q.new_zeros(3, 1)], 1)[:, inputs.labels.clamp(max=3)].transpose(0, 1) / (2 * tau**2)
    z, t = inputs.student.logits.detach(), inputs.teacher.logits.detach()
    shifted = (z / tau + v).flatten(2).softmax(2)
    expected = tau / (2 * 3) * (shifted - (t / tau).flatten(2).softmax(2))
    torch.testing.assert_close(gradient.flatten(2), expected, rtol=1e-9, atol=1e-12)


def classifier_gradient(**options):
    """Of the offsets alone: the logits are a leaf of their own."""
    inputs = golden_case()
    loss = fakd(**options)
    loss(inputs).backward()
    assert inputs.student.logits.grad is not None
    assert inputs.student.feature.grad is None, "the covariance is constant"
    assert inputs.teacher.logits.grad is None and inputs.teacher.feature.grad is None
    return inputs.student.weight.grad


def test_gradient_reaches_the_classifier_only_if_asked():
    for form in OWN:
        assert classifier_gradient(FORM=form, DETACH_CLASSIFIER=True) is None
        assert classifier_gradient(FORM=form, DETACH_CLASSIFIER=False).abs().max() > 0


def test_bound_and_tight_differ_in_the_classifier_by_the_gradient_of_the_penalty():
    """(lambda / 2C) sum_c sum_i P_ci w_c' Sigma w_c: tau cancels, and W shrinks."""
    tau, lambda_ = 4.0, 0.6
    options = {"TAU": tau, "LAMBDA": lambda_, "DETACH_CLASSIFIER": False}
    difference = classifier_gradient(FORM="bound", **options) - classifier_gradient(FORM="tight", **options)
    inputs = golden_case()
    _, _, sigma = reference.class_statistics(inputs.student.feature.detach(), inputs.labels, 3)
    weight = inputs.student.weight
    q = torch.einsum("ca,yab,cb->cy", weight, sigma, weight)
    p = (inputs.teacher.logits.detach() / tau).flatten(2).softmax(2).view(2, 3, 4, 5)
    share = torch.stack([(p * (inputs.labels == y)[:, None]).sum((2, 3)) for y in range(3)], 2)
    penalty = lambda_ / 2 * (share * q).sum() / (2 * 3)
    (expected,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(difference, expected, rtol=1e-8, atol=1e-10)


def test_classifier_gradient_is_the_numerical_one():
    """Through the loss as a whole, logits and offsets together; the covariance stays what it is."""
    g = golden_inputs()
    for form in OWN:
        loss = fakd(TAU=2.0, FORM=form, DETACH_CLASSIFIER=False)
        loss.statistics.update(g.feature, g.labels, g.valid)
        loss.eval()

        def value(weight, loss=loss):
            logits = torch.einsum("ca,nahw->nchw", weight, g.feature)
            student = SegOutput(logits, g.feature, weight)
            return loss(
                LossInputs(student, SegOutput(g.teacher, g.feature, g.weight), g.labels, g.valid, 0.5)
            )

        assert torch.autograd.gradcheck(value, (g.weight.clone().requires_grad_(),), fast_mode=True)


def test_lambda_follows_its_schedule():
    inputs = golden_case()
    for schedule, at_quarter in (
        ("cosine", (1 - math.cos(math.pi / 4)) / 2),
        ("linear", 0.25),
        ("constant", 1),
    ):
        loss = fakd(LAMBDA=1.5, LAMBDA_SCHEDULE=schedule)
        value = loss(LossInputs(inputs.student, inputs.teacher, inputs.labels, inputs.valid, 0.25)).item()
        lambda_ = 1.5 * at_quarter
        assert value == pytest.approx(fakd(LAMBDA=lambda_)(inputs).item(), abs=1e-10)
        assert loss.pop_scalars()["lambda"].item() == pytest.approx(lambda_)


def test_it_logs_the_size_of_its_offsets():
    inputs = golden_case()
    loss = fakd(TAU=2.0, LAMBDA=0.5)
    loss(inputs)
    scalars = loss.pop_scalars()
    q = logit_variance(inputs.student.weight.detach(), loss.statistics.covariance)
    assert scalars["offset_mean"].item() == pytest.approx(0.5 * q.mean().item() / 8)
    assert scalars["offset_max"].item() == pytest.approx(0.5 * q.max().item() / 8)
    assert loss.pop_scalars() == {}


def test_max_offset_limits_the_offsets():
    inputs = golden_case()
    loss = fakd(MAX_OFFSET=0.5)
    loss(inputs)
    assert loss.pop_scalars()["offset_max"].item() == 0.5
    # With every offset the same, the softmax over pixels that all have one does not see it.
    all_valid = LossInputs(inputs.student, inputs.teacher, inputs.labels % 3, inputs.labels >= 0, 0.5)
    tiny = fakd(MAX_OFFSET=1e-3)(all_valid).item()
    assert tiny == pytest.approx(build_loss("CWD", SPEC, SPEC, TAU=1.0)(all_valid).item(), abs=1e-10)


@pytest.mark.parametrize("key", ["FORM", "OFFSET", "COVARIANCE", "VARIANCE", "LAMBDA_SCHEDULE"])
def test_an_unknown_choice_names_its_key(key):
    with pytest.raises(ValueError, match=f"KD.FAKDChannel.{key} is 'other'"):
        fakd(**{key: "other"})


def test_the_weight_is_the_student_s_and_the_sizes_come_from_its_spec():
    student, teacher = seg_spec(5, 8), seg_spec(5, 20)
    loss = build_loss("FAKDChannel", student, teacher)
    assert isinstance(loss, FAKDChannel)
    inputs = loss_inputs(
        seg_output(student, size=(5, 6)), seg_output(teacher, size=(9, 9), seed=1), draw_labels(size=(5, 6))
    )
    assert loss(inputs).isfinite()
    assert loss.statistics.mean.shape == (5, 8)
