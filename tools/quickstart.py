#!/usr/bin/env python3
"""The whole project in minutes, on a dataset that it draws itself: a teacher, a student alone, the student
with CWD and with FAKD, and a report of what distillation gained.

One seed: a first look, not evidence; tools/study.py runs more. Repeat the command to continue after a stop.
"""

import argparse
import os
import sys
from pathlib import Path

from fakd.engine.cli import call_tool
from fakd.report.report import write_report
from fakd.sweep.local import run_locally
from fakd.sweep.spec import options_of, parse_spec


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("output/quickstart"), help="default: %(default)s")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config options for every run"
    )
    given = parser.parse_args()
    output = given.output.absolute()
    os.chdir(Path(__file__).parents[1])  # so that the report names the configs as everybody finds them
    if output.is_relative_to(Path.cwd()):
        output = output.relative_to(Path.cwd())
    # Shorter than the configs say, so that one can wait for it.
    teacher = {"config": "configs/toyscenes/teacher.yaml", "opts": {"SOLVER.MAX_ITER": 900}}
    student = {"student": "configs/toyscenes/student.yaml", "opts": {"SOLVER.MAX_ITER": 450}}
    spec = {
        "teacher": teacher,
        "pairs": {"": student},
        "methods": ["student", "cwd_mmseg", "fakd"],
        "opts": options_of(given.opts),
    }
    code = run_locally(parse_spec(spec, "the command line"), output)
    if code in (0, 1):
        page = write_report(
            [output], output, command="make quickstart", allow_plugins=True, allow_pickle=True
        )
        print(f"Report: {page}")
    return code


if __name__ == "__main__":
    sys.exit(call_tool(main))
