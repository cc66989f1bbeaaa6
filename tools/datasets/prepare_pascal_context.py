#!/usr/bin/env python3
"""`fakd data prepare pascal_context` in a checkout; --help says all."""

import sys

from fakd.commands.data import prepare
from fakd.errors import call_tool

if __name__ == "__main__":
    sys.exit(call_tool(lambda: prepare("pascal_context")))
