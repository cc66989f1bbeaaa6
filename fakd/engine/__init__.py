"""Training and evaluation: the trainer, its step and hooks, and ``run``."""

from .main import evaluate_weights, load_trained, run
from .shared_teacher import SharedTeacherRun, run_side_by_side, sharing_key
from .step import StepTrainer
from .trainer import Trainer

__all__ = [
    "SharedTeacherRun",
    "StepTrainer",
    "Trainer",
    "evaluate_weights",
    "load_trained",
    "run",
    "run_side_by_side",
    "sharing_key",
]
