"""Training and evaluation: the trainer, its step and hooks, and ``run``."""

from .main import load_trained, run
from .step import StepTrainer
from .trainer import Trainer

__all__ = ["StepTrainer", "Trainer", "load_trained", "run"]
