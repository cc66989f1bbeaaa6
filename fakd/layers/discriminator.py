"""The critic of adversarial distillation, which tells the teacher's score maps from the student's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class SelfAttention(nn.Module):
    """x + gamma * attention(x) over the pixels of an image, gamma 0 at first (Zhang et al. 2019, SAGAN).

    Args:
        channels: of the map; queries and keys have an eighth of them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 8)
        self.query = nn.Conv2d(channels, inner, 1)
        self.key = nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to the same shape."""
        query, key, value = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        attention = torch.softmax(query.transpose(1, 2) @ key, dim=2)
        return x + self.gamma * (value @ attention.transpose(1, 2)).view_as(x)


class Critic(nn.Module):
    """Discriminator of score maps, high where they look like the teacher's (Liu et al. 2019, SKDS).

    Batch norm of the input; per width a spectrally normalised 4x4 convolution of stride 2 and a leaky ReLU,
    the last two followed by self-attention; a plain 4x4 convolution to one channel. With the default widths
    64x64 becomes 1x1.

    Args:
        num_classes: channels of the score maps.
        widths: channels of the convolutions.
    """

    def __init__(self, num_classes: int, widths: Sequence[int] = (64, 128, 256, 512)) -> None:
        super().__init__()
        self.min_size = 4 * 2 ** len(widths)
        layers: list[nn.Module] = [nn.BatchNorm2d(num_classes)]
        channels = num_classes
        for i, width in enumerate(widths):
            layers += [spectral_norm(nn.Conv2d(channels, width, 4, 2, 1)), nn.LeakyReLU(0.1)]
            if i >= len(widths) - 2:
                layers.append(SelfAttention(width))
            channels = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 4))

    def forward(self, logits: Tensor) -> Tensor:
        """(N, K, h, w) with h and w at least ``min_size`` to (N, 1, h', w')."""
        return self.layers(logits)
