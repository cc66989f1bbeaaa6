#!/usr/bin/env python3
"""Prepares cityscapes; --help says what to fetch."""

import sys

from fakd.data.prepare.cityscapes import REMEDY, convert_cityscapes
from fakd.data.prepare.cli import run_conversion
from fakd.engine.cli import call_tool

if __name__ == "__main__":
    sys.exit(call_tool(lambda: run_conversion(convert_cityscapes, "cityscapes", REMEDY)))
