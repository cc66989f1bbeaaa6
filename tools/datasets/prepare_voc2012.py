#!/usr/bin/env python3
"""Prepares voc2012; --help says what to fetch."""

import sys

from fakd.data.prepare.cli import run_conversion
from fakd.data.prepare.voc2012 import REMEDY, convert_voc2012
from fakd.engine.cli import call_tool

if __name__ == "__main__":
    sys.exit(call_tool(lambda: run_conversion(convert_voc2012, "voc2012_aug", REMEDY)))
