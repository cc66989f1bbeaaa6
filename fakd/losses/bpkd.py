"""Boundary-privileged distillation."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..functional.divergence import channel_kl, pixel_kl
from ..functional.resize import aligned_logits
from ..registry import DISTILL_LOSS_REGISTRY
from ..structures import LossInputs
from .base import DistillLoss, option


@DISTILL_LOSS_REGISTRY.register()
class BPKD(DistillLoss):
    r"""PD on the borders of classes, CWD inside them (Liu et al. 2024, BPKD).

    $$
    \mathrm{edge} \cdot \mathrm{PD}(\text{edge pixels}; \tau_{\mathrm{edge}}) +
    \mathrm{body} \cdot \mathrm{CWD}(\text{body pixels}; \tau_{\mathrm{body}})
    $$

    with ``edge``, ``body`` and their temperatures as options. An edge pixel has a pixel of another class
    at most ``radius`` away, in rows and in columns: the trimap that dilating and eroding the labels
    gives. The body is the rest of the labelled pixels. PD is the mean over the edge pixels of the KL over
    classes, CWD the mean over images and classes of the KL over the body's pixels, which have all the
    mass of its softmaxes. A border with void is no edge.

    The training code was never published and the paper's weights were not at hand: the defaults are those of
    PD and CWD here.
    """

    paper = "Liu et al. 2024 (BPKD)"
    needs_labels = True

    @dataclass
    class Config(DistillLoss.Config):
        edge: float = option(1.0, "factor of the edge's term", least=0)
        body: float = option(3.0, "factor of the body's term", least=0)
        edge_tau: float = option(1.0, "temperature of the edge's term", above=0)
        body_tau: float = option(4.0, "temperature of the body's term", above=0)
        radius: int = option(1, "half of the edge's width, in pixels of the classifier's grid", least=1)

    def forward(self, inputs: LossInputs) -> Tensor:
        student, teacher = aligned_logits(inputs.student.logits, inputs.teacher.logits)
        edge = edges(inputs.labels, inputs.valid, self.config.radius)
        body = inputs.valid & ~edge
        self.log_scalar("edge_share", edge.sum() / inputs.valid.sum().clamp(min=1))
        on_edge = pixel_kl(student, teacher, self.config.edge_tau, edge.flatten(1))
        in_body = channel_kl(student, teacher, self.config.body_tau, body.flatten(1))
        return self.config.edge * on_edge + self.config.body * in_body


def edges(labels: Tensor, valid: Tensor, radius: int) -> Tensor:
    """(N, h, w) bool, the valid pixels with a valid one of another class within ``radius``.

    Args:
        labels: (N, h, w) int64.
        valid: (N, h, w) bool.
        radius: in pixels, of a square.
    """
    size = 2 * radius + 1
    ids = labels.float()[:, None]  # exact below 2^24
    largest, smallest = (
        F.max_pool2d((sign * ids).where(valid[:, None], -torch.inf), size, 1, radius)[:, 0]
        for sign in (1, -1)
    )
    return valid & (largest != -smallest)
