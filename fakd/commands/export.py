"""Writes a trained student as a file for one of many runtimes, checked against PyTorch."""

import argparse
from pathlib import Path

from tabulate import tabulate

from fakd.deploy.formats import FORMATS, OPSET
from fakd.deploy.metadata import PRECISIONS
from fakd.deploy.source import add_source, read_source
from fakd.deploy.student import export_student
from fakd.engine.logs import run_logging

EXAMPLES = """
examples:
  ONNX for any size          %(prog)s --run output/fakd
  for one size               %(prog)s --run output/fakd --size 512 1024
  int8, with its mIoU        %(prog)s --run output/fakd --precision int8
  from a config and weights  %(prog)s --config-file configs/camvid/student.yaml \\
                                 --weights output/fakd/model_best.pth --output student.onnx

formats:
FORMATS

The file takes "image", float32 (N, 3, H, W), and gives "scores", float32 (N, K, H, W), whose arg-max is the
class. It holds the names and colours of the classes and how an image is prepared. It is written only if at
least 99.9 %% of the pixels of random images have the class that PyTorch gives them; in float16 and int8 the
mIoU on the config's test sets is measured before and after instead. Exit codes: 0 written, 1 an error.
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
    add("--format", choices=FORMATS, default="onnx", help="file format (default: onnx)")
    add("--output", metavar="FILE", help="file to write (default: beside the weights, named after them)")
    size = "of the input, for one image at a time (default: any size, any number)"
    add("--size", type=int, nargs=2, metavar=("H", "W"), help=size)
    plain = "leave the normalisation out: the input is (image - pixel_mean) / pixel_std, not 0 to 255"
    add("--no-normalize", action="store_true", help=plain)
    add(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="default: float32; int8 is for onnx and openvino",
    )
    add("--calibration", type=int, default=64, metavar="N", help="training images for int8 (default: 64)")
    add("--opset", type=int, default=OPSET, metavar="N", help=f"ONNX opset (default: {OPSET})")
    add("--evaluate", action="store_true", help="measure the mIoU before and after export, also for float32")
    return parser.parse_args()


def main() -> None:
    """Runs the command line."""
    args = _parse()
    trust = {"allow_plugins": args.allow_plugins, "allow_pickle": args.allow_pickle}
    cfg, weights = read_source(args.run, args.config_file, args.weights, args.opts, **trust)
    precision = "" if args.precision == "float32" else f"_{args.precision}"
    output = args.output or str(Path(weights).with_suffix("")) + precision + FORMATS[args.format].ending
    with run_logging(""):
        done = export_student(
            cfg,
            weights,
            output,
            file_format=args.format,
            size=tuple(args.size) if args.size else None,
            normalize=not args.no_normalize,
            precision=args.precision,
            opset=args.opset,
            calibration=args.calibration,
            evaluate=args.evaluate,
        )
    if done.miou:
        rows = [(name, a, b, b - a) for name, (a, b) in done.miou.items()]
        print(tabulate(rows, ["mIoU", "PyTorch", args.precision, "difference"], floatfmt=".2f"))
    checked = done.comparison or f"not compared, since nothing here runs {args.format}"
    print(f"{done.path}: {done.size / 1e6:.2f} MB; {checked}")
