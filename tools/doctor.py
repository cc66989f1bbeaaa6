#!/usr/bin/env python3
"""Runs fakd/doctor.py by its path: importing the package would need what the doctor is to find missing."""

import runpy
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "fakd" / "doctor.py"
runpy.run_path(str(SCRIPT), run_name="__main__")
