"""Arguments that several commands take, and what is made of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from detectron2.config import CfgNode

from fakd.config import check_recipe, load_config
from fakd.deploy.source import add_source
from fakd.predict import Predictor


def at_least(least: int) -> Callable[[str], int]:
    """For ``type`` of an argument: whole numbers from ``least`` on; argparse names the argument."""

    def number(word: str) -> int:
        value = int(word)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is below {least}, the least that it may be")
        return value

    number.__name__ = "int"  # as argparse calls what is no number
    return number


def add_training(parser: argparse.ArgumentParser) -> None:
    """Adds ``--config-file``, ``--recipe``, ``--allow-plugins`` and ``--opts`` for :func:`load_training`."""
    add = parser.add_argument
    add("--config-file", required=True, metavar="FILE", help="config of the training")
    add("--recipe", metavar="NAME", help="distillation method, in place of KD.RECIPE; 'student': none")
    add("--allow-plugins", action="store_true", help="run the code that the recipe names")
    add("--opts", nargs="*", default=[], metavar="KEY VALUE", help="config keys, as KD.TEACHER.RUN FOLDER")


def load_training(args: argparse.Namespace) -> CfgNode:
    """The config of a training, not frozen.

    Raises:
        FileNotFoundError, KeyError, ValueError: see :func:`fakd.config.check_recipe` and
            :func:`fakd.config.load_config`.
    """
    if not args.allow_plugins:
        check_recipe(args.recipe, args.config_file, args.opts)
    return load_config(args.config_file, args.opts, args.recipe)


def add_predictor(parser: argparse.ArgumentParser) -> None:
    """Adds what names a trained network, and how it is asked, for :func:`build_predictor`."""
    add_source(parser)
    add = parser.add_argument
    add("--exported", metavar="FILE", help="a file written by ``fakd export``, in place of --run")
    add(
        "--batch-size",
        type=at_least(1),
        default=1,
        metavar="N",
        help="pictures or frames at once (default: 1)",
    )
    add("--device", metavar="NAME", help="such as cpu or cuda (default: a GPU if there is one)")


def check_predictor(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program with a message if the arguments name no network, or several."""
    if sum(map(bool, (args.run, args.config_file, args.exported))) != 1:
        parser.error("name the student by one of --run, --config-file (with --weights) and --exported")


def build_predictor(args: argparse.Namespace) -> Predictor:
    """The predictor that the arguments name."""
    return Predictor(
        args.run or args.config_file or args.exported,
        args.weights,
        device=args.device,
        batch_size=args.batch_size,
        opts=args.opts,
        allow_plugins=args.allow_plugins,
        allow_pickle=args.allow_pickle,
    )


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Adds what a report predicts, and which code in the runs it may run."""
    add = parser.add_argument
    add(
        "--images",
        type=at_least(0),
        default=40,
        metavar="N",
        help="number of test images to predict; those where the runs differ most are shown; "
        "0: no pictures of predictions (default: %(default)s)",
    )
    add("--allow-plugins", action="store_true", help="run the PLUGINS named in the runs' configs")
    add(
        "--allow-pickle",
        action="store_true",
        help="open pickled weights, which can run any code, where the configs allow it",
    )
