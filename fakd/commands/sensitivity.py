"""Ranks the layers of a student by what each loses in int8, and draws the ranking."""

import argparse
from pathlib import Path

from tabulate import tabulate

from fakd.deploy.sensitivity import draw, rank_layers
from fakd.deploy.source import add_source, read_source
from fakd.engine.logs import run_logging
from fakd.files import atomic_write

from .arguments import at_least

EXAMPLE = """
example:
  %(prog)s --run output/student --output output/sensitivity --in-float 4

writes OUTPUT.csv, a row per layer, and OUTPUT.png, and prints the key that leaves the worst in float in a
training for int8 (DEPLOY.QAT). Exit codes: 0 done, 1 an error.
"""


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_source(parser)
    add = parser.add_argument
    add("--images", type=at_least(1), default=16, metavar="N", help="of the first test set (default: 16)")
    add(
        "--calibration",
        type=at_least(1),
        default=32,
        metavar="N",
        help="training images for ranges (default: 32)",
    )
    add("--in-float", type=at_least(0), default=4, metavar="K", help="layers in the printed key (default: 4)")
    add("--output", required=True, metavar="STEM", help="of the .csv and the .png")
    args = parser.parse_args()
    trust = {"allow_plugins": args.allow_plugins, "allow_pickle": args.allow_pickle}
    cfg, weights = read_source(args.run, args.config_file, args.weights, args.opts, **trust)
    with run_logging(""):
        layers, mixed = rank_layers(cfg, weights, args.images, args.calibration)
    Path(args.output).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(f"{args.output}.csv", "w") as file:
        layers.to_csv(file, index=False, float_format="%.4f")
    with atomic_write(f"{args.output}.png") as file:
        file.write(draw(layers, mixed))
    counts = mixed.astype({"in float": str})
    print(tabulate(counts, "keys", "github", showindex=False, floatfmt=".3f"))
    print(f'\nDEPLOY.QAT.FLOAT_LAYERS "{tuple(layers["layer"][: args.in_float])}"')
