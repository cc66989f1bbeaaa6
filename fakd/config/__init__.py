"""Configuration: detectron2's yacs config with this project's keys."""

from .defaults import add_fakd_config
from .experiments import Cell, find_cell, read_cells
from .setup import NO_RECIPE, RECIPES, load_config, recipe_path

__all__ = [
    "NO_RECIPE",
    "RECIPES",
    "Cell",
    "add_fakd_config",
    "find_cell",
    "load_config",
    "read_cells",
    "recipe_path",
]
