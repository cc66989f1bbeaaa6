"""Training and evaluation: the trainer, its step and hooks, and ``run``."""

from .main import evaluate_given, load_trained, run
from .shared_teacher import PackedRun, run_pack, shared_part
from .step import StepTrainer
from .trainer import Trainer

__all__ = [
    "PackedRun",
    "StepTrainer",
    "Trainer",
    "evaluate_given",
    "load_trained",
    "run",
    "run_pack",
    "shared_part",
]
