"""Trains finished students on in int8's rounding, and compares them with float and static int8.

Finished parts are left as they are and interrupted ones are resumed: repeat the same command to continue.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch
from tabulate import tabulate

from fakd.deploy.formats import FORMATS
from fakd.deploy.int8_study import compare_int8
from fakd.files import atomic_write

from .arguments import at_least

EXAMPLE = """
example:
  %(prog)s --config-file configs/toyscenes/student.yaml --runs output/seed0 output/seed1 output/seed2 \\
      --teacher output/teacher --recipes student pd --size 96 128 --output output/int8

OUTPUT.csv has a row per run, way and file; the printed table has their means. Exit codes: 0 done, 1 an error,
143 or 130 stopped by SIGTERM or Ctrl-C.
"""


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", required=True, metavar="FILE", help="config of the runs")
    add(
        "--runs", required=True, nargs="+", type=Path, metavar="DIR", help="finished runs; named alike or not"
    )
    add("--teacher", default="", metavar="DIR", help="run whose network teaches")
    recipes = "who teaches in int8; 'student' is nobody (default: %(default)s)"
    add("--recipes", nargs="+", default=["student"], metavar="NAME", help=recipes)
    add(
        "--size",
        type=at_least(1),
        nargs=2,
        required=True,
        metavar=("H", "W"),
        help="of the input of the files",
    )
    add("--iterations", type=at_least(1), default=300, metavar="N", help="of training in int8 (default: 300)")
    add("--rate", type=float, default=0.1, metavar="X", help="factor of the learning rate (default: 0.1)")
    written = "of the files; static int8 is made for the first alone (default: %(default)s)"
    add("--formats", nargs="+", default=["onnx"], choices=FORMATS, help=written)
    add("--output", required=True, type=Path, metavar="DIR", help="of the runs and files, and OUTPUT.csv")
    add("--threads", type=at_least(0), default=0, metavar="N", help="CPU threads (default: PyTorch's choice)")
    add("--opts", nargs="*", default=[], metavar="KEY VALUE", help="config keys of int8 and its training")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    options = {"recipes": args.recipes, "teacher": args.teacher, "iterations": args.iterations}
    options |= {"rate": args.rate, "formats": args.formats, "opts": args.opts}
    table = compare_int8(args.config_file, args.runs, args.output, tuple(args.size), **options)
    with atomic_write(Path(f"{args.output}.csv"), "w") as file:
        table.to_csv(file, index=False, float_format="%.3f")
    print(tabulate(means(table), "keys", "github", showindex=False))


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over the runs, a row per way and file."""
    numbers = [name for name in table if name not in ("run", "way", "file")]
    groups = table.groupby(["way", "file"], sort=False)[numbers]
    mean, spread = groups.mean(), groups.std().fillna(0)
    text = {
        name: [
            "" if pd.isna(m) else f"{m:.2f} ± {s:.2f}" if name.startswith("mIoU") else f"{m:.2f}"
            for m, s in zip(mean[name], spread[name], strict=True)
        ]
        for name in numbers
    }
    runs = table.groupby(["way", "file"], sort=False)["run"].size()
    return pd.DataFrame({"runs": runs.to_list(), **text}, index=mean.index).reset_index()
