"""Trains a teacher, then a student by several methods and seeds, and writes a report that compares them.

The flags become a sweep, which is run as by ``fakd tune --local``. Finished runs are left as they are and
interrupted ones are resumed: repeat the same command to continue.
"""

import argparse
from pathlib import Path
from typing import Any

from fakd.report.report import write_report
from fakd.sweep.local import run_locally
from fakd.sweep.spec import options_of, parse_spec

from . import typed

EXAMPLE = """
example:
  %(prog)s --teacher-config configs/toyscenes/teacher.yaml \\
      --student-config configs/toyscenes/student.yaml --methods student cwd fakd --seeds 0 1 2 \\
      --output output/toyscenes --opts MODEL.DEVICE cpu

The report is OUTPUT/report.html. Exit codes: 0 done, 1 an error or a run that failed (which the end of the
output names), 143 or 130 stopped by SIGTERM or Ctrl-C with everything saved.
"""


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    pairs: dict[str, Any] = {"nargs": "*", "default": [], "metavar": "KEY VALUE"}
    parser.add_argument("--teacher-config", required=True, metavar="FILE")
    parser.add_argument("--student-config", required=True, metavar="FILE")
    parser.add_argument(
        "--teacher-weights",
        default="",
        metavar="FILE",
        help="weights of a trained teacher; none is trained then",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["student", "cwd", "fakd"],
        metavar="NAME",
        help="names in fakd/config/recipes, or paths; 'student' has no teacher (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=[0],
        metavar="N",
        help="seeds of the students (default: 0); all share one teacher",
    )
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="DIR",
        help="runs are written to DIR/runs/<method>/seed<N>",
    )
    parser.add_argument("--allow-plugins", action="store_true", help="run the code that the recipes name")
    parser.add_argument("--opts", **pairs, help="config options for every run")
    parser.add_argument("--teacher-opts", **pairs, help="additional config options for the teacher")
    parser.add_argument("--student-opts", **pairs, help="additional config options for every student")
    return parser.parse_args()


def main() -> int:
    """Runs the command line."""
    given = _parse()
    teacher = {
        "config": given.teacher_config,
        "weights": given.teacher_weights,
        "opts": options_of(given.teacher_opts),
    }
    spec = {
        "pairs": {"": {"student": given.student_config, "opts": options_of(given.student_opts)}},
        "teacher": teacher,
        "methods": given.methods,
        "seeds": given.seeds,
        "opts": options_of(given.opts),
    }
    sweep = parse_spec(spec, "the command line")
    if not given.allow_plugins:
        sweep.check_recipes()
    code = run_locally(sweep, given.output)
    if code in (0, 1):
        command = typed()
        page = write_report(
            [given.output], given.output, command=command, allow_plugins=True, allow_pickle=True
        )
        print(f"Report: {page}")
    return code
