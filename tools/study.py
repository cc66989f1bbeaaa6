#!/usr/bin/env python3
"""Trains a teacher, then a student by several methods and seeds, and writes a report that compares them.

Finished runs are left as they are and interrupted ones are resumed: repeat the same command to go on.
"""

import argparse
import shlex
import sys
from pathlib import Path

from fakd.engine.cli import call_tool
from fakd.sweep.local import StudySpec, run_study

EXAMPLE = """
example:
  tools/study.py --teacher-config configs/toyscenes/teacher.yaml \\
      --student-config configs/toyscenes/student.yaml --methods student cwd fakd --seeds 0 1 2 \\
      --output output/toyscenes --opts MODEL.DEVICE cpu

The report is OUTPUT/report.html. Exit codes: 0 done, 1 an error or a run that failed (see
OUTPUT/<method>/seed<k>/error.txt), 143 or 130 stopped by SIGTERM or Ctrl-C with everything saved.
"""


def parse() -> StudySpec:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    pairs = {"nargs": "*", "default": [], "metavar": "KEY VALUE"}
    parser.add_argument("--teacher-config", required=True, metavar="FILE")
    parser.add_argument("--student-config", required=True, metavar="FILE")
    parser.add_argument("--teacher-weights", default="", metavar="FILE", help="use them; train no teacher")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["student", "cwd", "fakd"],
        metavar="NAME",
        help="recipes of fakd/config/recipes, or paths; 'student' is no help (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0], metavar="N", help="default: 0; one teacher serves all"
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="runs lie in DIR/<method>/seed<N>"
    )
    parser.add_argument("--opts", **pairs, help="config options for every run")
    parser.add_argument("--teacher-opts", **pairs, help="for the teacher besides")
    parser.add_argument("--student-opts", **pairs, help="for every student besides")
    given = vars(parser.parse_args())
    return StudySpec(
        **{key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    )


if __name__ == "__main__":
    sys.exit(call_tool(lambda: run_study(parse(), command=shlex.join(["python", *sys.argv]))))
