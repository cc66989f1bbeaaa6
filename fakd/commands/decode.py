"""Decodes the training images of a config once, so that training reads bytes in place of jpegs and pngs."""

import argparse

from fakd.data.datasets.custom import register_custom
from fakd.data.decoded import write_decoded
from fakd.data.loader import training_records

from .arguments import add_training, load_training

EXAMPLES = """
example:
  %(prog)s --config-file configs/camvid_pretrained/student_lite0.yaml --output output/decoded
  fakd train --config-file configs/camvid_pretrained/student_lite0.yaml DATALOADER.DECODED output/decoded

The folder takes three bytes for every pixel of an image and one for every pixel of a label. Training refuses
it when a file has changed since, or is not in it.
"""


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_training(parser)
    parser.add_argument("--output", required=True, metavar="FOLDER", help="where the pixels are kept")
    given = parser.parse_args()
    cfg = load_training(given)
    register_custom(cfg.DATASETS.CUSTOM)
    total = write_decoded(training_records(cfg), given.output)
    print(f"{total / 1e6:.1f} MB in '{given.output}'. Train with DATALOADER.DECODED {given.output}.")
