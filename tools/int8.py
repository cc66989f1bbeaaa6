#!/usr/bin/env python3
"""`fakd int8` in a checkout; --help says all."""

import sys

from fakd.commands.int8 import main
from fakd.errors import call_tool

if __name__ == "__main__":
    sys.exit(call_tool(main))
