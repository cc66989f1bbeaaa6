"""Checkpoints: saving, resuming, and loading weights that must fit."""

from .checkpointer import Checkpointer, load_tensors
from .teacher import load_teacher

__all__ = ["Checkpointer", "load_teacher", "load_tensors"]
