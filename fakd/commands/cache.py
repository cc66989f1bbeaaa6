"""Writes what a teacher says of fixed views of the training images, so that training needs no teacher."""

import argparse

from fakd.engine.cache_teacher import cache_teacher
from fakd.engine.logs import run_logging

from .arguments import add_training, load_training

EXAMPLES = """
example:
  %(prog)s --config-file configs/toyscenes/student.yaml --recipe fakd --output output/cache \\
      --views 8 --opts KD.TEACHER.RUN output/teacher
  fakd train --config-file configs/toyscenes/student.yaml --recipe fakd KD.TEACHER.CACHE output/cache

The cache holds the maps that the recipe's losses read. The same call goes on with a cache that was stopped.
Training refuses one of other images, views, losses or weights. Exit codes: 0 written, 1 an error.
"""


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_training(parser)
    add = parser.add_argument
    add("--output", required=True, metavar="FOLDER", help="folder of the cache")
    add("--views", type=int, default=4, metavar="N", help="views of each training image (default: 4)")
    add("--seed", type=int, default=0, help="seed of the views (default: 0)")
    add("--top", type=int, default=0, metavar="K", help="logits kept of a pixel (default: all)")
    return parser.parse_args()


def main() -> None:
    """Runs the command line."""
    args = _parse()
    cfg = load_training(args)
    with run_logging(""):
        cache_teacher(cfg, args.output, args.views, args.seed, args.top)
