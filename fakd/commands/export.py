"""Writes a trained student as a file for one of many runtimes, checked against PyTorch."""

import argparse
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from tabulate import tabulate

from fakd.deploy.formats import FORMATS, OPSET
from fakd.deploy.metadata import PRECISIONS
from fakd.deploy.side_by_side import export_all
from fakd.deploy.source import add_source, read_source
from fakd.deploy.student import export_student
from fakd.engine import provenance
from fakd.engine.logs import run_logging

from .arguments import at_least

EXAMPLES = """
examples:
  ONNX for any size          %(prog)s --run output/fakd
  for one size               %(prog)s --run output/fakd --size 512 1024
  int8, with its mIoU        %(prog)s --run output/fakd --precision int8
  all formats, and a table   %(prog)s --run output/fakd --size 512 1024 --format all
  from a config and weights  %(prog)s --config-file configs/camvid/student.yaml \\
                                 --weights output/fakd/model_best.pth --output student.onnx

formats:
FORMATS

The file takes "image", float32 (N, C, H, W), where C is INPUT.CHANNELS, and gives "scores", float32
(N, K, H, W), whose arg-max is the class. It holds the names and colours of the classes and how an image is
prepared. It is written only if at least 99.9 %% of the pixels of random images have the class that PyTorch
gives them; in float16 and int8 the mIoU on the config's test sets is measured before and after instead. Exit
codes: 0 written, 1 an error.
"""


def _described() -> str:
    return "\n".join(
        f"  {made.name:13}{made.ending:13}{made.limits or 'any size, any number'}"
        for made in FORMATS.values()
    ).replace("%", "%%")


def _parse() -> argparse.Namespace:
    epilog = EXAMPLES.replace("FORMATS", _described())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_source(parser)
    add = parser.add_argument
    every = "'all': every one that is installed, in every precision, and a table; needs --size"
    add("--format", choices=[*FORMATS, "all"], default="onnx", help=f"file format (default: onnx); {every}")
    named = (
        "file to write, with 'all' its name without ending (default: beside the weights, named after them)"
    )
    add("--output", metavar="FILE", help=named)
    size = "of the input, for one image at a time (default: any size, any number)"
    add("--size", type=at_least(1), nargs=2, metavar=("H", "W"), help=size)
    plain = "leave the normalisation out: the input is (image - pixel_mean) / pixel_std, not 0 to 255"
    add("--no-normalize", action="store_true", help=plain)
    add(
        "--precision",
        choices=PRECISIONS,
        default="",
        help="default: float32, or int8 of a network trained for it; int8 is for onnx, openvino and litert",
    )
    add(
        "--calibration",
        type=at_least(1),
        default=64,
        metavar="N",
        help="training images for int8 (default: 64)",
    )
    add("--opset", type=at_least(1), default=OPSET, metavar="N", help=f"ONNX opset (default: {OPSET})")
    add("--evaluate", action="store_true", help="measure the mIoU before and after export, also for float32")
    add(
        "--threads",
        type=at_least(1),
        default=1,
        metavar="N",
        help="CPU threads of the table's times (default: 1)",
    )
    add("--table", metavar="FILE", help="csv file that gets each row of --format all once it is measured")
    args = parser.parse_args()
    if args.format == "all" and not args.size:
        parser.error("--format all compares files for images of one size: give --size H W")
    return args


def main() -> None:
    """Runs the command line."""
    args = _parse()
    trust = {"allow_plugins": args.allow_plugins, "allow_pickle": args.allow_pickle}
    cfg, weights = read_source(args.run, args.config_file, args.weights, args.opts, **trust)
    common = {"normalize": not args.no_normalize, "opset": args.opset, "calibration": args.calibration}
    stem = str(Path(weights).with_suffix(""))
    with run_logging(""):
        if args.format == "all":
            kept = {"threads": args.threads, "table": args.table}
            table = export_all(cfg, weights, args.output or stem, tuple(args.size), **kept, **common)
            print(tabulate(table.fillna(""), "keys", "github", floatfmt=".2f", showindex=False))
            print(f"\nOn {provenance.machine('cpu')}, {args.threads} threads; PyTorch {torch.__version__}.")
        else:
            _export_one(args, cfg, weights, stem, common)


def _export_one(
    args: argparse.Namespace, cfg: CfgNode, weights: str, stem: str, common: dict[str, Any]
) -> None:
    kept = args.precision or ("int8" if cfg.DEPLOY.QAT.ENABLED else "float32")
    precision = "" if kept == "float32" else f"_{kept}"
    done = export_student(
        cfg,
        weights,
        args.output or stem + precision + FORMATS[args.format].ending,
        file_format=args.format,
        size=tuple(args.size) if args.size else None,
        precision=args.precision,
        evaluate=args.evaluate,
        **common,
    )
    if done.miou:
        rows = [(name, a, b, b - a) for name, (a, b) in done.miou.items()]
        print(tabulate(rows, ["mIoU", "PyTorch", kept, "difference"], floatfmt=".2f"))
    checked = done.comparison or f"not compared, since nothing here runs {args.format}"
    print(f"{done.path}: {done.size / 1e6:.2f} MB; {checked}")
