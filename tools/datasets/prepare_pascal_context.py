#!/usr/bin/env python3
"""Prepares pascal_context; --help says what to fetch."""

import sys

from fakd.data.prepare.cli import run_conversion
from fakd.data.prepare.pascal_context import REMEDY, convert_pascal_context
from fakd.engine.cli import call_tool

if __name__ == "__main__":
    sys.exit(call_tool(lambda: run_conversion(convert_pascal_context, "pascal_context_59", REMEDY)))
