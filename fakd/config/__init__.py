"""Configuration: detectron2's yacs config with this project's keys."""

from .defaults import add_fakd_config
from .experiments import Experiment, Paper, find_experiment, read_experiments, read_paper
from .setup import (
    NO_RECIPE,
    RECIPES,
    check_recipe,
    load_config,
    load_teacher_config,
    own_folder,
    recipe_path,
)

__all__ = [
    "NO_RECIPE",
    "RECIPES",
    "Experiment",
    "Paper",
    "add_fakd_config",
    "check_recipe",
    "find_experiment",
    "load_config",
    "load_teacher_config",
    "own_folder",
    "read_experiments",
    "read_paper",
    "recipe_path",
]
