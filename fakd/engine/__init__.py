"""Training and evaluation: the trainer, its step and hooks, and ``run``."""

from .distill import distill
from .evaluate import evaluate, evaluate_weights, load_trained, measure
from .main import run
from .shared_teacher import SharedTeacherRun, run_side_by_side, sharing_key
from .step import StepTrainer
from .trainer import Trainer

__all__ = [
    "SharedTeacherRun",
    "StepTrainer",
    "Trainer",
    "distill",
    "evaluate",
    "evaluate_weights",
    "load_trained",
    "measure",
    "run",
    "run_side_by_side",
    "sharing_key",
]
