#!/usr/bin/env python3
"""`fakd data prepare ade20k` in a checkout; --help says all."""

import sys

from fakd.commands.data import prepare
from fakd.errors import call_tool

if __name__ == "__main__":
    sys.exit(call_tool(lambda: prepare("ade20k")))
