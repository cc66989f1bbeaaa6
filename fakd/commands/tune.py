"""Runs a sweep: all trials of one file, on this machine or a Ray cluster, and then its report."""

import argparse
import contextlib
from pathlib import Path

from . import typed

EXAMPLES = """
examples:
  run a sweep                %(prog)s --spec projects/FAKD/sweeps/toyscenes_table5.yaml \\
                                 --output output/table5
  without Ray                the same command with --local: one run after another
  go on after a stop         the same command with --resume
  on a running cluster       the same command with --address auto     (docs/cluster.md)
  write the report again     fakd report output/table5

Exit codes: 0 done, 1 an error or a failed trial, 130 or 143 stopped by Ctrl-C or SIGTERM and resumable.
"""


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--spec", required=True, metavar="FILE", help="sweep file; docs/sweeps.md lists all keys")
    add("--output", type=Path, metavar="DIR", help="default: output/sweeps/<name of the spec>")
    add("--resume", action="store_true", help="continue the sweep in DIR")
    add("--local", action="store_true", help="run one trial after another in this process, without Ray")
    add("--allow-plugins", action="store_true", help="run the code that the recipes name")
    add("--address", default="", help="address of a running Ray cluster; 'auto' finds it")
    add("--storage", default="", metavar="PATH", help="folder or URI of Ray's own records (default: DIR/ray)")
    add("--dashboard", action="store_true", help="start Ray's dashboard, on this machine only")
    add("--cpus", type=int, metavar="N", help="cores to use (default: all)")
    add("--gpus", type=int, metavar="N", help="GPUs to use (default: all)")
    given = parser.parse_args()
    if given.local and (given.address or given.storage or given.dashboard or given.cpus or given.gpus):
        parser.error("--address, --storage, --dashboard, --cpus and --gpus are Ray's; --local does without")
    return given


def _sweep(given: argparse.Namespace) -> int:
    from fakd.report.report import write_report  # now, because the code may have changed when the sweep ends
    from fakd.sweep.spec import read_spec

    output = given.output or Path("output/sweeps", Path(given.spec).stem)
    spec = read_spec(given.spec)
    if not given.allow_plugins:
        spec.check_recipes()
    if given.local:
        from fakd.sweep.local import run_locally

        code = run_locally(spec, output, given.resume)
    else:
        from fakd.sweep.ray_tune import Options, run_sweep

        names = ("resume", "address", "storage", "dashboard", "cpus", "gpus")
        code = run_sweep(spec, Options(output, **{name: getattr(given, name) for name in names}))
    if code > 1:  # whoever stops a sweep does not wait for pictures
        print(f"Report on what is finished: fakd report {output}")
        return code
    with contextlib.suppress(FileNotFoundError):  # no run is finished
        page = write_report([output], output, command=typed(), allow_plugins=True, allow_pickle=True)
        print(f"Report: {page}")
    return code


def main() -> int:
    """Runs a sweep."""
    given = _parse()
    print(f"Reading {given.spec}.", flush=True)  # what follows imports for seconds
    return _sweep(given)
