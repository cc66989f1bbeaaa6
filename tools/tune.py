#!/usr/bin/env python3
"""Runs a sweep: all trials of one file, on this machine or a Ray cluster, and then its report."""

import argparse
import shlex
import sys
from pathlib import Path

from fakd.engine.cli import call_tool

EXAMPLES = """
examples:
  run a sweep                tools/tune.py --spec projects/FAKD/sweeps/toyscenes_table5.yaml \\
                                 --output output/table5
  go on after a stop         the same command with --resume
  on a running cluster       the same command with --address auto     (docs/cluster.md)
  write the report again     tools/tune.py report output/table5

Exit codes: 0 done, 1 an error or a failed trial, 130 interrupted and resumable.
"""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--spec", required=True, metavar="FILE", help="the sweep; fakd/tune/spec.py has all keys"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="default: output/sweeps/<name of the spec>"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the sweep in DIR")
    parser.add_argument("--address", default="", help="of a running Ray cluster, 'auto' to find it")
    parser.add_argument(
        "--storage", default="", metavar="PATH", help="of Ray's own records (default: DIR/ray)"
    )
    parser.add_argument("--dashboard", action="store_true", help="Ray's dashboard, on this machine only")
    parser.add_argument("--cpus", type=int, metavar="N", help="cores to use (default: all)")
    parser.add_argument("--gpus", type=int, metavar="N", help="GPUs to use (default: all)")
    return parser.parse_args()


def sweep() -> int:
    given = parse()
    from fakd.tune.report import write_sweep_report
    from fakd.tune.runner import Options, run_sweep
    from fakd.tune.spec import read_spec

    options = {key: value for key, value in vars(given).items() if key != "spec"}
    options["output"] = given.output or Path("output/sweeps", Path(given.spec).stem)
    spec = read_spec(given.spec)
    code = run_sweep(spec, Options(**options))
    print(f"Report: {write_sweep_report(options['output'], shlex.join(['python', *sys.argv]))}")
    return code


def report() -> None:
    from fakd.tune.report import write_sweep_report

    parser = argparse.ArgumentParser(prog="tools/tune.py report", description="Writes the report of a sweep.")
    parser.add_argument("sweep", metavar="DIR", help="folder of the sweep")
    print(write_sweep_report(parser.parse_args(sys.argv[2:]).sweep))


if __name__ == "__main__":
    sys.exit(call_tool(report if sys.argv[1:2] == ["report"] else sweep))
