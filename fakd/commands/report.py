"""Writes the report of finished runs, or keeps them as JSON lines, from which the report can be made again.

Each PATH is a folder that holds finished runs or a sweep, at any depth, or a file of kept lines.
"""

import argparse
import sys
from pathlib import Path

from fakd.report.records import write_lines
from fakd.report.report import write_report
from fakd.report.sections import SECTIONS

from . import typed
from .arguments import add_reading

EXAMPLES = f"""
examples:
  of a study or a sweep      %(prog)s output/toyscenes
  keep its runs              %(prog)s output/toyscenes --keep docs/results/runs/toyscenes.jsonl
  from kept runs             %(prog)s docs/results/runs/toyscenes_fast.jsonl --output output/fast
  sweeps in one table        %(prog)s output/first output/second --side-by-side --output output/both

sections: {", ".join(SECTIONS)}
"""


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH")
    add(
        "--output",
        metavar="DIR",
        help="folder to write into (default: the first PATH, if it is a folder, else output/report)",
    )
    add("--command", default="", metavar="TEXT", help="command that reproduces these runs, to be shown")
    add(
        "--baseline",
        metavar="RUN",
        help="run that others are compared with, by name or folder (default: the student without a teacher)",
    )
    add_reading(parser)
    add("--sections", nargs="+", default=[], metavar="NAME", help="only the sections whose names begin so")
    add("--side-by-side", action="store_true", help="write one table, with columns for each PATH and pair")
    add("--dataset", default="", metavar="NAME", help="test set to report (default: each run's first)")
    add("--paper", default="", metavar="PROJECT", help="show the values of this project's paper beside ours")
    add(
        "--keep",
        metavar="FILE",
        help="add the finished runs missing in FILE to it, as JSON lines, and write no report",
    )
    return parser.parse_args()


def main() -> None:
    """Runs the command line."""
    given = _parse()
    if given.keep:
        added, problems = write_lines(given.paths, given.keep)
        for problem in problems:
            print(problem, file=sys.stderr)
        print(f"{added} runs added to {given.keep}")
        return
    first = Path(given.paths[0])
    page = write_report(
        given.paths,
        given.output or (first if first.is_dir() else "output/report"),
        command=given.command or (typed() if given.output else ""),
        baseline=given.baseline,
        num_images=given.images,
        sections=given.sections,
        side_by_side=given.side_by_side,
        dataset=given.dataset,
        paper=given.paper,
        allow_plugins=given.allow_plugins,
        allow_pickle=given.allow_pickle,
    )
    print(page)
