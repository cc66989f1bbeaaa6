"""Checkpoints: saving, resuming, and loading weights that must fit."""

from .checkpointer import Checkpointer, load_tensors
from .files import atomic_write, remove_leftovers
from .teacher import load_teacher

__all__ = ["Checkpointer", "atomic_write", "load_teacher", "load_tensors", "remove_leftovers"]
