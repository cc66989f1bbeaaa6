#!/usr/bin/env python3
"""Runs fakd/doctor.py by its path: importing the package would need what the doctor is to find missing."""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).resolve().parents[1] / "fakd" / "doctor.py"), run_name="__main__")
