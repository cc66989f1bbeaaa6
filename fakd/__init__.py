"""Knowledge distillation for semantic segmentation on detectron2.

Importing this package registers its networks in detectron2's registries and its datasets in detectron2's
catalogs. ``add_fakd_config`` on ``get_cfg()`` adds its keys.
"""

import warnings
from importlib.util import find_spec

from . import losses

__version__ = "0.1.0"
__all__ = ["losses"]

# The losses alone need only torch and fvcore, and may be used in a project that has no detectron2.
if find_spec("detectron2"):
    with warnings.catch_warnings():
        # detectron2 scripts functions while it is imported, which newer torch warns of at length.
        warnings.filterwarnings("ignore", "`torch.jit.script", FutureWarning)
        from . import data, modeling
        from .config import add_fakd_config

    __all__ += ["add_fakd_config", "data", "modeling"]
