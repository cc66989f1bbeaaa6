#!/usr/bin/env python3
"""`fakd sensitivity` in a checkout; --help says all."""

import sys

from fakd.commands.sensitivity import main
from fakd.errors import call_tool

if __name__ == "__main__":
    sys.exit(call_tool(main))
