"""Trainable parts of losses."""

from .adapter import build_adapter
from .discriminator import Critic

__all__ = ["Critic", "build_adapter"]
