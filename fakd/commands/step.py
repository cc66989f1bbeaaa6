"""What the parts of a training step cost: data, teacher, student, each loss, backward and the optimizer."""

import argparse
from typing import Any

import torch
from tabulate import tabulate

from fakd.engine import provenance
from fakd.engine.logs import run_logging
from fakd.engine.step_cost import advice, step_costs

from .arguments import add_training, at_least, load_training

EXAMPLES = """
example:
  %(prog)s --config-file configs/toyscenes/student.yaml --recipe fakd --opts KD.TEACHER.RUN output/teacher

Each part is timed by itself, in turns with the others, on batches of the training set; the median counts.
Memory is what a part takes at most beyond what is there already. The last line names the largest part and the
keys that help. Let nothing else run meanwhile.
"""


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_training(parser)
    add = parser.add_argument
    add(
        "--rounds", type=at_least(1), default=5, metavar="N", help="how often each part is timed (default: 5)"
    )
    add("--threads", type=at_least(0), default=0, metavar="N", help="threads of the CPU (default: PyTorch's)")
    return parser.parse_args()


def main() -> None:
    """Runs the command line."""
    args = _parse()
    cfg = load_training(args)
    cfg.freeze()
    if args.threads:
        torch.set_num_threads(args.threads)
    with run_logging("", quiet=True):
        costs = step_costs(cfg, args.rounds)
    total = sum(cost.ms for cost in costs.values())
    rows: list[tuple[Any, ...]] = [
        (name, cost.ms, f"{100 * cost.ms / total:.1f} %", cost.peak_mb) for name, cost in costs.items()
    ]
    rows.append(("step", total, "100.0 %", None))
    print(tabulate(rows, ["part", "ms", "share", "peak MB"], floatfmt=".1f", tablefmt="github"))
    print(f"\n{advice(costs, cfg)}.")
    print(f"On {provenance.machine(cfg.MODEL.DEVICE)}; PyTorch {provenance.versions()['torch']}.")
