"""Bringing the student's channels to the teacher's."""

from __future__ import annotations

import logging

from torch import nn

logger = logging.getLogger(__name__)


def build_adapter(
    loss: str, student_channels: int, teacher_channels: int, norm: bool = False, always: bool = False
) -> nn.Module:
    """A 1x1 convolution without bias where channels differ, else the identity.

    Args:
        loss: name of the loss, for the log.
        student_channels: in.
        teacher_channels: out.
        norm: follow it with batch norm and a ReLU.
        always: build it for equal channels too.
    """
    if student_channels == teacher_channels and not always:
        return nn.Identity()
    layers: list[nn.Module] = [nn.Conv2d(student_channels, teacher_channels, 1, bias=False)]
    if norm:
        layers += [nn.BatchNorm2d(teacher_channels), nn.ReLU(inplace=True)]
    logger.info(
        "KD.%s: adapter from the student's %d channels to the teacher's %d: 1x1 convolution%s, %d weights.",
        loss,
        student_channels,
        teacher_channels,
        ", batch norm, ReLU" if norm else "",
        sum(p.numel() for layer in layers for p in layer.parameters()),
    )
    return nn.Sequential(*layers)
