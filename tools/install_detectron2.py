#!/usr/bin/env python3
"""Runs fakd/install_detectron2.py by its path, so that it works before fakd is installed."""

import runpy
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "fakd" / "install_detectron2.py"
runpy.run_path(str(SCRIPT), run_name="__main__")
