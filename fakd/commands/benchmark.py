"""Measures networks: parameters, GFLOPs, time and memory of inference and of a training step."""

import argparse
import io
import sys
from functools import partial
from pathlib import Path

from tabulate import tabulate

from fakd.commands import step
from fakd.deploy.benchmark import RUNTIMES, benchmark
from fakd.engine import provenance
from fakd.files import atomic_write
from fakd.sweep.spec import options_of

from .arguments import at_least

EXAMPLES = """
example:
  %(prog)s --config-file configs/camvid/student.yaml configs/camvid/teacher.yaml --output cost.csv

Every measurement has a process of its own and three calls to warm up. Latency is wall-clock of one call, from
images of 0 to 255 to scores at their size, so let nothing else run meanwhile. Peak memory is on a GPU what
PyTorch allocated, on a CPU what the process held beyond what it held before the network was built. A training
step is forward, backward and the optimizer on SOLVER.IMS_PER_BATCH crops, in float32, without distillation or
reading of data. A cell without a number says why. Each measurement is printed as it is made; Ctrl-C ends them
and keeps what there is. Exit codes: 0 all measured, 1 an error, 130 ended by Ctrl-C.
"""


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", required=True, nargs="+", metavar="FILE", help="configs to measure, a column each")
    add(
        "--size",
        type=at_least(1),
        nargs=2,
        metavar=("H", "W"),
        help="default: the first config's INPUT.CROP.SIZE",
    )
    add("--batch-sizes", type=at_least(1), nargs="+", default=[1, 8], metavar="N", help="default: 1 8")
    add(
        "--runtimes",
        nargs="+",
        choices=RUNTIMES,
        metavar="NAME",
        help=f"of {', '.join(RUNTIMES)} (default: eager, onnxruntime, training; on a GPU compiled too)",
    )
    add(
        "--repeats",
        type=at_least(1),
        default=30,
        metavar="N",
        help="number of timed calls, for training a third (default: 30)",
    )
    add("--threads", type=at_least(0), default=0, metavar="N", help="CPU threads (default: all cores)")
    add("--output", metavar="FILE", help="also write the table as csv")
    add("--opts", nargs="*", default=[], metavar="KEY VALUE", help="config keys, such as MODEL.DEVICE cpu")
    return parser.parse_args()


def main() -> int:
    """Runs the command line; ``step`` as its first word is a command of its own."""
    if sys.argv[1:2] == ["step"]:
        sys.argv[:2] = [f"{sys.argv[0]} step"]
        step.main()
        return 0
    args = _parse()
    device = options_of(args.opts).get("MODEL.DEVICE", "cuda")
    threads = f"{args.threads} threads" if args.threads else "all cores"
    machine = f"{provenance.machine(device)}, {threads}; PyTorch {provenance.versions()['torch']}"
    print(f"On {machine}.", flush=True)
    table, whole = benchmark(
        args.config_file,
        opts=args.opts,
        runtimes=args.runtimes,
        batches=args.batch_sizes,
        size=tuple(args.size) if args.size else None,
        repeats=args.repeats,
        threads=args.threads,
        tell=partial(print, flush=True),
    )
    print(tabulate(table, headers="keys", tablefmt="github", disable_numparse=True))
    if args.output:
        text = io.StringIO()
        table.to_csv(text, index_label="quantity")
        Path(args.output).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(args.output, "w") as file:
            file.write(text.getvalue())
    return 0 if whole else 130
