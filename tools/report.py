#!/usr/bin/env python3
"""Writes report.md and report.html of a study: a folder of finished runs, <study>/<run>/seed<k>/."""

import argparse
import logging
import sys

from fakd.engine.cli import call_tool
from fakd.report.records import write_lines
from fakd.report.report import write_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", metavar="DIR", help="of a study; the report is written into it")
    parser.add_argument(
        "--command", default="", metavar="TEXT", help="how to get these runs again, to be shown"
    )
    parser.add_argument(
        "--keep",
        metavar="FILE",
        help="add the finished runs in the folders that FILE has not yet, as JSON lines, and write no report",
    )
    arguments = parser.parse_args()
    logging.basicConfig(format="%(levelname)s: %(message)s")
    if arguments.keep:
        added, problems = write_lines(arguments.folders, arguments.keep)
        for problem in problems:
            print(problem, file=sys.stderr)
        print(f"{added} runs added to {arguments.keep}")
        return
    for folder in arguments.folders:
        print(write_report(folder, arguments.command))


if __name__ == "__main__":
    sys.exit(call_tool(main))
