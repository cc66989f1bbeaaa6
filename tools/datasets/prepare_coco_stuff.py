#!/usr/bin/env python3
"""Prepares coco_stuff; --help says what to fetch."""

import sys

from fakd.data.prepare.cli import run_conversion
from fakd.data.prepare.coco_stuff import REMEDY, check_coco_stuff
from fakd.engine.cli import call_tool

if __name__ == "__main__":
    sys.exit(call_tool(lambda: run_conversion(check_coco_stuff, "coco_stuff_164k", REMEDY)))
