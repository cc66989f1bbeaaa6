"""Runs a trained student on pictures, folders, videos or a camera."""

import argparse
import sys
from pathlib import Path

from fakd.predict.demo import KINDS, Demo, find_inputs

from .arguments import add_predictor, at_least, build_predictor, check_predictor

EXAMPLES = """
examples:
  pictures and folders       %(prog)s --run output/fakd street.jpg photographs/
  a config and weights       %(prog)s --config-file configs/camvid/student.yaml \\
                                 --weights output/fakd/model_best.pth photographs/
  a video, exported student  %(prog)s --exported student.onnx drive.mp4
  a camera                   %(prog)s --run output/fakd --webcam 0     (Ctrl-C ends it)

A picture x.jpg becomes x_overlay.jpg, with a legend, or x_labels.png, the class of every pixel, coloured by
its palette; a video an mp4. Files with the ending of a video are videos, all others pictures.
Exit codes: 0 all done, 1 an error, or a picture that could not be read and was skipped.
"""


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("inputs", nargs="*", metavar="INPUT", help="picture, folder or video")
    add_predictor(parser)
    add("--webcam", type=at_least(0), metavar="N", help="number of the camera; the first is 0")
    add("--max-frames", type=at_least(1), metavar="N", help="frames of each video or camera (default: all)")
    add("--output", type=Path, default=Path("output/demo"), metavar="DIR", help="default: %(default)s")
    add("--kind", choices=KINDS, default="overlay", help="what to write (default: overlay)")
    add(
        "--opacity",
        type=float,
        default=0.5,
        metavar="X",
        help="opacity of the overlay, 0 to 1 (default: 0.5)",
    )
    args = parser.parse_args()
    if not args.inputs and args.webcam is None:
        parser.error("give pictures, folders or videos, or --webcam N")
    check_predictor(parser, args)
    if not 0 <= args.opacity <= 1:
        parser.error(f"--opacity must lie in 0 to 1, got {args.opacity}")
    return args


def main() -> int:
    """Runs the command line."""
    args = _parse()
    pictures, videos = find_inputs(args.inputs)
    predictor = build_predictor(args)
    demo = Demo(predictor, args.output, args.kind, args.opacity)
    if pictures:
        demo.pictures(pictures)
    for video, name in videos:
        demo.video(str(video), name, args.max_frames)
    if args.webcam is not None:
        demo.video(args.webcam, f"camera{args.webcam}", args.max_frames)
    print(f"{demo.written} files in {args.output}")
    if demo.skipped:
        print(f"error: {len(demo.skipped)} of {len(pictures)} pictures could not be read:", file=sys.stderr)
        print("\n".join(demo.skipped), file=sys.stderr)
    return 1 if demo.skipped else 0
