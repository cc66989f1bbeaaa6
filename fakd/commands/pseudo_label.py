"""Labels pictures by a trained network where it is sure enough, as a dataset to train on."""

import argparse
from pathlib import Path

from tabulate import tabulate

from fakd.predict.demo import find_inputs
from fakd.predict.pseudo_label import write_pseudo_labels

from .arguments import add_predictor, build_predictor, check_predictor

EXAMPLES = """
examples:
  a threshold for all    %(prog)s --run output/teacher my_data/images/more --output output/pseudo
  one of its own         %(prog)s ... --confidence 0.9 --class-confidence Pole=0.6 Sign=0.6
  the surest 40 %% of each class's pixels
                         %(prog)s ... --keep 0.4

It writes labels/<name>.png, a contact sheet and a yaml into the folder. To train on both:
  DATASETS.CUSTOM "('my_data.yaml','output/pseudo/pseudo.yaml')"
  DATASETS.TRAIN "('my_data_train','pseudo_train')"
"""


def _share(word: str) -> float:
    value = float(word)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{word} does not lie in 0 to 1")
    return value


def _named(word: str) -> tuple[str, float]:
    name, _, value = word.rpartition("=")
    if not name:
        raise argparse.ArgumentTypeError(f"{word} is not CLASS=CONFIDENCE")
    return name, _share(value)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="picture or folder")
    add_predictor(parser)
    add("--output", type=Path, default=Path("output/pseudo"), metavar="DIR", help="default: %(default)s")
    add("--confidence", type=_share, default=0.9, metavar="P", help="least probability (default: 0.9)")
    add("--class-confidence", type=_named, nargs="+", default=[], metavar="CLASS=P", help="of single classes")
    add("--keep", type=_share, metavar="X", help="in their place: the share of each class's pixels")
    add("--ignore-label", type=int, default=255, metavar="ID", help="of void in the labels (default: 255)")
    args = parser.parse_args()
    check_predictor(parser, args)
    return args


def main() -> None:
    """Does what the command line says."""
    args = _parse()
    pictures, videos = find_inputs(args.inputs)
    if videos:
        raise ValueError(f"'{videos[0][0]}' is a video: labels are of pictures. Give its frames as pictures.")
    predictor = build_predictor(args)
    by_class = dict(args.class_confidence)
    found = write_pseudo_labels(
        predictor, pictures, args.output, args.confidence, by_class, args.keep, args.ignore_label
    )
    shares = 100 * found.kept / found.predicted.clip(min=1)
    rows = list(zip(predictor.classes, found.predicted, found.thresholds, shares, strict=True))
    print(tabulate(rows, ["class", "pixels", "confidence", "% kept"], floatfmt=("", "", ".3f", ".1f")))
    whole = 100 * found.kept.sum() / found.predicted.sum()
    print(f"{len(pictures)} labels, {whole:.1f} % of their pixels; look at {found.sheet}")
    print(f"The dataset is described in {found.description}; --help says how to train on it.")
