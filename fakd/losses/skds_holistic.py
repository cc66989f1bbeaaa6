"""Holistic term of structured knowledge distillation."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import relu

from ..functional.ranks import num_ranks
from ..functional.resize import check_same_classes, resize_like
from ..layers import Critic
from ..registry import DISTILL_LOSS_REGISTRY
from ..structures import LossInputs, SegSpec
from .base import DistillLoss, option


@DISTILL_LOSS_REGISTRY.register()
class SKDSHolistic(DistillLoss):
    r"""Adversarial: a critic D learns to tell the student's logits from the teacher's (Liu et al. 2019, 3.2).

    $$
    \mathrm{student} = -\mathrm{mean}\ D(S)
    $$

    $$
    \mathrm{critic} = w \left( \mathrm{mean}\ D(S) - \mathrm{mean}\ D(T) +
    g\ \mathrm{mean}_n (\lVert \nabla D(x_n) \rVert - 1)^2 \right)
    $$

    $$
    \mathrm{critic}_{\mathrm{hinge}} = w \left( \mathrm{mean} \max(0, 1 - D(T)) +
    \mathrm{mean} \max(0, 1 + D(S)) \right)
    $$

    with w ``critic_weight``, g ``gradient_penalty``, S and T the raw logits and x = a T + (1 - a) S, a
    uniform in [0, 1) per image; the last is ``objective: hinge``. The critic sees only logits, as in the
    authors' code. It is trained here, one step per forward pass in training, with an optimizer of its
    own: the gradient into the student's logits is computed before that step, so no backward pass sees
    changed weights, and any trainer works. The trainer's optimizer never sees the critic; its gradients
    are averaged over ranks; its weights and momenta are in the state of the loss. Its learning rate
    decays with the progress of the training as ``critic_power`` says. With SOLVER.ACCUMULATE it makes one
    step per micro-batch. Batch norm in the critic couples the images of a batch, in the penalty too.
    """

    paper = "Liu et al. 2019 (SKDS), holistic"

    @dataclass
    class Config(DistillLoss.Config):
        weight: float = option(0.1, "factor of the student's term in the sum; the authors'", least=0)
        objective: str = option("wgan_gp", "wgan_gp or hinge", choices=("wgan_gp", "hinge"))
        critic_weight: float = option(0.1, "factor of the critic's own loss", least=0)
        gradient_penalty: float = option(10.0, "of wgan_gp; hinge has none", least=0)
        critic_optimizer: str = option(
            "sgd", "sgd with momentum 0.9, or adam with betas 0.9 and 0.99", choices=("sgd", "adam")
        )
        critic_lr: float = option(4e-4, "learning rate of the critic", above=0)
        critic_power: float = option(
            0.9, "CRITIC_LR is multiplied by (1 - progress)^this; 0 keeps it constant", least=0
        )
        critic_weight_decay: float = option(5e-4, "weight decay of the critic", least=0)
        widths: tuple = option(
            (64, 128, 256, 512),
            "channels of its convolutions, each of which halves the map; may be empty",
            least=1,
        )

    def __init__(self, config: Config, student: SegSpec, teacher: SegSpec) -> None:
        super().__init__(config, student, teacher)
        self.critic = Critic(student.num_classes, config.widths).requires_grad_(False)
        parameters, decay = list(self.critic.parameters()), config.critic_weight_decay
        self.optimizer: torch.optim.Optimizer
        if config.critic_optimizer == "sgd":
            self.optimizer = torch.optim.SGD(parameters, config.critic_lr, momentum=0.9, weight_decay=decay)
        else:
            self.optimizer = torch.optim.Adam(
                parameters, config.critic_lr, betas=(0.9, 0.99), weight_decay=decay
            )

    def forward(self, inputs: LossInputs) -> Tensor:
        logits = inputs.student.logits
        check_same_classes(logits, inputs.teacher.logits)
        self.check_size(*logits.shape[-2:])
        trained = torch.is_grad_enabled() and logits.requires_grad
        student = logits.detach().requires_grad_(trained)
        value = -self.critic(student).mean()
        slope = torch.autograd.grad(value, student)[0] if trained else None
        if self.training:
            with torch.no_grad():
                teacher = resize_like(inputs.teacher.logits, logits)
            self.train_critic(student.detach(), teacher.detach(), inputs.progress)
        return _WithSlope.apply(logits, value.detach(), slope)

    def check_size(self, height: int, width: int) -> None:
        """See :meth:`DistillLoss.check_size`: the critic's convolutions need a least size."""
        least = self.critic.min_size
        if min(height, width) < least:
            raise ValueError(
                f"SKDSHolistic: the student's logits are {height}x{width}, but a critic with "
                f"{len(self.config.widths)} KD.SKDSHolistic.WIDTHS needs at least {least}x{least}. Give "
                "fewer widths, for instance (64,), which needs 8x8, or a larger INPUT.CROP.SIZE."
            )

    @torch.enable_grad()
    def train_critic(self, student: Tensor, teacher: Tensor, progress: float) -> None:
        """One step of the critic on logits without gradient."""
        with _trainable(self.critic):
            loss = self.config.critic_weight * self.critic_loss(student, teacher)
            parameters = list(self.critic.parameters())
            gradients = _mean_over_ranks(torch.autograd.grad(loss, parameters))
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.critic_lr * (1 - progress) ** self.config.critic_power
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.log_scalar("critic", loss)

    def critic_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The critic's loss without its weight."""
        real, fake = self.critic(teacher), self.critic(student)
        self.log_scalar("lead", real.mean() - fake.mean())
        if self.config.objective == "hinge":
            return relu(1 - real).mean() + relu(1 + fake).mean()
        penalty = gradient_penalty(self.critic, teacher, student)
        return fake.mean() - real.mean() + self.config.gradient_penalty * penalty

    def get_extra_state(self) -> dict[str, Any]:
        """The critic's optimizer, which is saved with the loss."""
        return self.optimizer.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the critic's optimizer."""
        self.optimizer.load_state_dict(state)


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Mean over images of (|grad D(x)| - 1)^2 between ``real`` and ``fake``, D summed over its output map."""
    a = torch.rand(len(real), 1, 1, 1, dtype=real.dtype, device=real.device)
    between = (a * real + (1 - a) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (torch.linalg.vector_norm(slope.flatten(1), dim=1) - 1).square().mean()


@contextmanager
def _trainable(module: nn.Module) -> Iterator[None]:
    """The module requires gradients inside only, so that no other optimizer trains it."""
    module.requires_grad_(True)
    try:
        yield
    finally:
        module.requires_grad_(False)


def _mean_over_ranks(gradients: Sequence[Tensor]) -> Sequence[Tensor]:
    if num_ranks() == 1:
        return gradients
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    flat /= num_ranks()
    parts = flat.split([g.numel() for g in gradients])
    return [part.view_as(g) for part, g in zip(parts, gradients, strict=True)]


class _WithSlope(torch.autograd.Function):
    """A value whose gradient is known already."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, slope: Tensor | None) -> Tensor:
        ctx.save_for_backward(slope)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        return ctx.saved_tensors[0] * g, None, None
