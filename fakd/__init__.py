"""Knowledge distillation for semantic segmentation on detectron2.

Importing this package registers its networks in detectron2's registries and its datasets in detectron2's
catalogs. ``add_fakd_config`` on ``get_cfg()`` adds its keys.
"""

from . import data, losses, modeling
from .config import add_fakd_config

__version__ = "0.1.0"
__all__ = ["add_fakd_config", "data", "losses", "modeling"]
