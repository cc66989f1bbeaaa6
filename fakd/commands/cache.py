"""Writes what a teacher says of fixed views of the training images, so that training needs no teacher."""

import argparse

from fakd.config import check_recipe, load_config
from fakd.engine.cache_teacher import cache_teacher
from fakd.engine.logs import run_logging

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
    add = parser.add_argument
    add("--config-file", required=True, metavar="FILE", help="config of the student")
    add("--recipe", metavar="NAME", help="distillation method, in place of KD.RECIPE")
    add("--allow-plugins", action="store_true", help="run the code that the recipe names")
    add("--output", required=True, metavar="FOLDER", help="folder of the cache")
    add("--views", type=int, default=4, metavar="N", help="views of each training image (default: 4)")
    add("--seed", type=int, default=0, help="seed of the views (default: 0)")
    add("--top", type=int, default=0, metavar="K", help="logits kept of a pixel (default: all)")
    add("--opts", nargs="*", default=[], metavar="KEY VALUE", help="config keys, as KD.TEACHER.RUN FOLDER")
    return parser.parse_args()


def main() -> None:
    """Runs the command line."""
    args = _parse()
    if not args.allow_plugins:
        check_recipe(args.recipe, args.config_file, args.opts)
    cfg = load_config(args.config_file, args.opts, args.recipe)
    with run_logging(""):
        cache_teacher(cfg, args.output, args.views, args.seed, args.top)
