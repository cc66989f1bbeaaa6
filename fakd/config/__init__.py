"""Configuration: detectron2's yacs config with this project's keys."""

from .defaults import add_fakd_config
from .setup import NO_RECIPE, RECIPES, load_config, recipe_path

__all__ = ["NO_RECIPE", "RECIPES", "add_fakd_config", "load_config", "recipe_path"]
