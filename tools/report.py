#!/usr/bin/env python3
"""Writes report.md and report.html of a study: a folder of finished runs, <study>/<run>/seed<k>/."""

import argparse
import logging
import sys

from fakd.engine.cli import call_tool
from fakd.report.report import write_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "study", metavar="STUDY_DIR", help="folder of the study; the report is written into it"
    )
    parser.add_argument(
        "--command", default="", metavar="TEXT", help="how to get these runs again, to be shown"
    )
    arguments = parser.parse_args()
    logging.basicConfig(format="%(levelname)s: %(message)s")
    print(write_report(arguments.study, arguments.command))


if __name__ == "__main__":
    sys.exit(call_tool(main))
