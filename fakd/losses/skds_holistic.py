"""Holistic term of structured knowledge distillation."""

from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.autograd.function import once_differentiable
from torch.nn.functional import relu

from ..functional.resize import check_same_classes, resize_like
from ..layers import Critic
from ..registry import DISTILL_LOSS_REGISTRY
from .base import DistillLoss, option


@DISTILL_LOSS_REGISTRY.register()
class SKDSHolistic(DistillLoss):
    """The student's logits are to look like the teacher's to a critic D (Liu et al. 2019, section 3.2).

        student   - mean D(S)
        critic    critic_weight (mean D(S) - mean D(T) + gradient_penalty mean_n (|grad D(x_n)| - 1)^2)
                  critic_weight (mean relu(1 - D(T)) + mean relu(1 + D(S)))                      ``hinge``

    with S and T the raw logits and x = a T + (1 - a) S, a uniform in [0, 1) per image. The critic sees
    logits alone, as in the authors' code. It is trained here, one step per forward pass in training, with an
    optimizer of its own: the gradient into the student's logits is made before that step, so no backward
    pass meets changed weights, and any trainer works. The trainer's optimizer never sees the critic; its
    gradients are averaged over ranks; its weights and momenta are in the state of the loss. Its learning
    rate decays with the progress of the training as ``critic_power`` says. With SOLVER.ACCUMULATE it makes a
    step per part of the batch. Batch norm in the critic couples the images of a batch, in the penalty too.
    """

    paper = "Liu et al. 2019 (SKDS), holistic"

    @dataclass
    class Config(DistillLoss.Config):
        weight: float = option(0.1, "factor of the student's term in the sum; the authors'")
        objective: str = option("wgan_gp", "wgan_gp or hinge")
        critic_weight: float = option(0.1, "factor of the critic's own loss")
        gradient_penalty: float = option(10.0, "of wgan_gp; hinge has none")
        critic_optimizer: str = option("sgd", "sgd with momentum 0.9, or adam with betas 0.9 and 0.99")
        critic_lr: float = option(4e-4, "learning rate of the critic")
        critic_power: float = option(0.9, "it is multiplied by (1 - progress)^power; 0 keeps it constant")
        critic_weight_decay: float = option(5e-4, "weight decay of the critic")
        widths: tuple = option((64, 128, 256, 512), "channels of its convolutions; each halves the map")

    def __init__(self, config, student, teacher):
        super().__init__(config, student, teacher)
        self.check_choice(config, objective=("wgan_gp", "hinge"), critic_optimizer=("sgd", "adam"))
        self.critic = Critic(student.num_classes, config.widths).requires_grad_(False)
        parameters, decay = list(self.critic.parameters()), config.critic_weight_decay
        if config.critic_optimizer == "sgd":
            self.optimizer = torch.optim.SGD(parameters, config.critic_lr, momentum=0.9, weight_decay=decay)
        else:
            self.optimizer = torch.optim.Adam(
                parameters, config.critic_lr, betas=(0.9, 0.99), weight_decay=decay
            )

    def forward(self, inputs):
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

    def check_size(self, height, width):
        """Raise ValueError if a map has no place for the critic's convolutions."""
        least = self.critic.min_size
        if min(height, width) < least:
            raise ValueError(
                f"SKDSHolistic: the student's logits are {height}x{width}, but a critic with "
                f"{len(self.config.widths)} KD.SKDSHolistic.WIDTHS needs at least {least}x{least}. Give "
                "fewer widths, for instance (64,), which needs 8x8, or a larger INPUT.CROP.SIZE."
            )

    @torch.enable_grad()
    def train_critic(self, student, teacher, progress):
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

    def critic_loss(self, student, teacher):
        """The critic's loss without its weight."""
        real, fake = self.critic(teacher), self.critic(student)
        self.log_scalar("lead", real.mean() - fake.mean())
        if self.config.objective == "hinge":
            return relu(1 - real).mean() + relu(1 + fake).mean()
        penalty = gradient_penalty(self.critic, teacher, student)
        return fake.mean() - real.mean() + self.config.gradient_penalty * penalty

    def get_extra_state(self):
        return self.optimizer.state_dict()

    def set_extra_state(self, state):
        self.optimizer.load_state_dict(state)


def gradient_penalty(critic, real, fake):
    """Mean over images of (|grad D(x)| - 1)^2 between ``real`` and ``fake``, D summed over its output map."""
    a = torch.rand(len(real), 1, 1, 1, dtype=real.dtype, device=real.device)
    between = (a * real + (1 - a) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (torch.linalg.vector_norm(slope.flatten(1), dim=1) - 1).square().mean()


@contextmanager
def _trainable(module):
    """The module asks for gradients inside only, so that no optimizer of others takes it up."""
    module.requires_grad_(True)
    try:
        yield
    finally:
        module.requires_grad_(False)


def _mean_over_ranks(gradients):
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return gradients
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = flat.split([g.numel() for g in gradients])
    return [part.view_as(g) for part, g in zip(parts, gradients, strict=True)]


class _WithSlope(torch.autograd.Function):
    """A value whose gradient is known already."""

    @staticmethod
    def forward(ctx, x, value, slope):
        ctx.save_for_backward(slope)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return ctx.saved_tensors[0] * g, None, None
