"""SKDS's critic is trained beside the student, each without a gradient from the other."""

import copy

import pytest
import torch
from detectron2.solver import build_optimizer
from detectron2.utils import comm
from material import build_loss, draw_labels, loss_inputs, seg_output, seg_spec, small_segmentor
from ranks import on_ranks
from torch import nn

from fakd.config import load_config
from fakd.losses.skds_holistic import gradient_penalty
from fakd.modeling import Distiller
from fakd.structures import LossInputs, SegOutput

SPEC = seg_spec(5, 8)
SMALL = {"WIDTHS": (4,)}


def inputs_of(seed=0, n=2, progress=0.0):
    student, teacher = (seg_output(SPEC, n=n, seed=seed + i) for i in (0, 100))
    return loss_inputs(student, teacher, draw_labels(n), progress)


def weights(loss):
    return [p.clone() for p in loss.critic.parameters()]


def test_the_student_s_term_and_its_gradient_are_of_the_critic_before_its_step():
    loss = build_loss("SKDSHolistic", SPEC, SPEC, **SMALL)
    inputs, before = inputs_of(), copy.deepcopy(loss.critic)
    value = loss(inputs)
    (gradient,) = torch.autograd.grad(value, inputs.student.feature, retain_graph=True)
    expected = -before(inputs.student.logits).mean()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, inputs.student.feature)[0])


@pytest.mark.parametrize("objective", ["wgan_gp", "hinge"])
def test_one_step_of_the_critic_by_hand(objective):
    options = {"OBJECTIVE": objective, "CRITIC_LR": 0.1, "CRITIC_WEIGHT_DECAY": 0.0, **SMALL}
    loss = build_loss("SKDSHolistic", SPEC, SPEC, **options)
    twin = copy.deepcopy(loss.critic).requires_grad_(True)
    inputs = inputs_of(progress=0.5)
    torch.manual_seed(3)
    loss(inputs)
    torch.manual_seed(3)
    s, t = inputs.student.logits.detach(), inputs.teacher.logits
    twin(s)  # the power iteration of the student's term
    real, fake = twin(t), twin(s)
    if objective == "hinge":
        expected = (1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean()
    else:
        expected = fake.mean() - real.mean() + 10 * gradient_penalty(twin, t, s)
    (0.1 * expected).backward()
    lr = 0.1 * 0.5**0.9
    for p, own in zip(twin.parameters(), loss.critic.parameters(), strict=True):
        torch.testing.assert_close(own, p - lr * p.grad)


def test_neither_gets_a_gradient_from_the_other():
    loss = build_loss("SKDSHolistic", SPEC, SPEC, **SMALL)
    inputs, before = inputs_of(), weights(loss)
    value = loss(inputs)
    assert inputs.student.feature.grad is None  # the critic's step leaves the student alone
    after = weights(loss)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    value.backward()
    assert all(p.grad is None and not p.requires_grad for p in loss.critic.parameters())
    assert all(torch.equal(a, b) for a, b in zip(after, weights(loss), strict=True))


def test_the_critic_learns_to_tell_them_apart():
    loss = build_loss(
        "SKDSHolistic", SPEC, SPEC, CRITIC_OPTIMIZER="adam", CRITIC_LR=0.01, CRITIC_WEIGHT=1.0, **SMALL
    )
    inputs = inputs_of()
    leads = []
    for _ in range(30):
        loss(inputs)
        leads.append(loss.pop_scalars()["lead"].item())
    assert leads[-1] > leads[0] + 0.1


def test_the_penalty_of_a_linear_critic():
    a = torch.randn(5, 9, 11)
    penalty = gradient_penalty(
        lambda x: (x * a).sum((1, 2, 3)), torch.randn(3, 5, 9, 11), torch.randn(3, 5, 9, 11)
    )
    torch.testing.assert_close(penalty, (a.norm() - 1).square())


def test_hinge_of_a_critic_that_says_nothing():
    loss = build_loss("SKDSHolistic", SPEC, SPEC, OBJECTIVE="hinge", **SMALL)
    nn.init.zeros_(loss.critic.layers[-1].weight)
    nn.init.zeros_(loss.critic.layers[-1].bias)
    inputs = inputs_of()
    assert loss.critic_loss(inputs.student.logits, inputs.teacher.logits).item() == 2


@pytest.mark.parametrize("power, rate", [(0.9, 4e-4 * 0.25**0.9), (0.0, 4e-4)])
def test_its_learning_rate_follows_the_progress(power, rate):
    loss = build_loss("SKDSHolistic", SPEC, SPEC, CRITIC_POWER=power, **SMALL)
    loss(inputs_of(progress=0.75))
    assert loss.optimizer.param_groups[0]["lr"] == pytest.approx(rate)


def test_maps_too_small_name_the_loss_and_the_key():
    loss = build_loss("SKDSHolistic", SPEC, SPEC)
    with pytest.raises(ValueError, match=r"SKDSHolistic.*9x11.*KD.SKDSHolistic.WIDTHS needs at least 64x64"):
        loss(inputs_of())


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_momenta_are_in_the_state(optimizer, tmp_path):
    """Two steps, a save, a load and a third step end where three steps do."""
    options = {"CRITIC_OPTIMIZER": optimizer, **SMALL}
    loss = build_loss("SKDSHolistic", SPEC, SPEC, **options)
    for step in range(2):
        loss(inputs_of(step))
    torch.save(loss.state_dict(), tmp_path / "state.pth")
    other = build_loss("SKDSHolistic", SPEC, SPEC, **options)
    other.load_state_dict(torch.load(tmp_path / "state.pth"))
    for x in (loss, other):
        torch.manual_seed(1)
        x(inputs_of(2))
    assert all(torch.equal(a, b) for a, b in zip(weights(loss), weights(other), strict=True))


def test_the_student_s_optimizer_does_not_know_it():
    student, teacher = small_segmentor(), small_segmentor(seed=1)
    loss = build_loss("SKDSHolistic", student.spec, teacher.spec, **SMALL)
    distiller = Distiller(student=student, teacher=teacher, losses={"SKDSHolistic": loss})
    optimizer = build_optimizer(load_config(), distiller)
    known = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert known == {id(p) for p in student.parameters()}


def two_ranks(folder):
    loss = build_loss("SKDSHolistic", SPEC, SPEC, CRITIC_LR=0.1, **SMALL)
    loss.load_state_dict(torch.load(folder / "state.pth"))
    for step in range(3):
        torch.manual_seed(10 * comm.get_rank() + step)
        loss(inputs_of(10 * comm.get_rank() + step))
    torch.save(weights(loss), folder / f"rank{comm.get_rank()}.pth")


def test_ranks_keep_one_critic(tmp_path):
    loss = build_loss("SKDSHolistic", SPEC, SPEC, CRITIC_LR=0.1, **SMALL)
    torch.save(loss.state_dict(), tmp_path / "state.pth")
    on_ranks(two_ranks, 2, tmp_path)
    a, b = (torch.load(tmp_path / f"rank{r}.pth") for r in range(2))
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x, y)
    assert any(not torch.equal(x, start) for x, start in zip(a, loss.critic.parameters(), strict=True))


def test_a_finer_teacher_is_resized():
    student, teacher = seg_output(SPEC), seg_output(SPEC, size=(18, 21), seed=1)
    loss = build_loss("SKDSHolistic", SPEC, SPEC, **SMALL)
    assert loss(loss_inputs(student, teacher, draw_labels())).isfinite()
    few = SegOutput(teacher.logits[:, :4], teacher.feature, teacher.weight)
    inputs = loss_inputs(student, teacher, draw_labels())
    with pytest.raises(ValueError, match="NUM_CLASSES"):
        loss(LossInputs(student, few, inputs.labels, inputs.valid))
