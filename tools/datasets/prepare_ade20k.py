#!/usr/bin/env python3
"""Prepares ade20k; --help says what to fetch."""

import sys

from fakd.data.prepare.ade20k import REMEDY, convert_ade20k
from fakd.data.prepare.cli import run_conversion
from fakd.engine.cli import call_tool

if __name__ == "__main__":
    sys.exit(call_tool(lambda: run_conversion(convert_ade20k, "ade20k", REMEDY)))
