"""Checks a dataset, prepares one from its original files, or decodes its images once."""

import argparse
import sys
from importlib import import_module

from fakd.data.prepare.cli import run_conversion

from . import check, decode

# The function that prepares each dataset, in fakd.data.prepare.<name>, and the dataset's registered name.
PREPARED = {
    "ade20k": ("convert_ade20k", "ade20k"),
    "cityscapes": ("convert_cityscapes", "cityscapes"),
    "coco_stuff": ("check_coco_stuff", "coco_stuff_164k"),
    "pascal_context": ("convert_pascal_context", "pascal_context_59"),
    "voc2012": ("convert_voc2012", "voc2012_aug"),
}


def main() -> None:
    """``data check ...``, ``data prepare NAME ...`` or ``data decode ...``."""
    actions = {
        "check": check.main,
        "decode": decode.main,
        "prepare": lambda: prepare(_word(list(PREPARED), "NAME")),
    }
    actions[_word(list(actions), "ACTION")]()


def prepare(name: str) -> None:
    """Parses the rest of the command line and prepares a dataset, a key of :data:`PREPARED`."""
    module = import_module(f"fakd.data.prepare.{name}")
    function, registered = PREPARED[name]
    run_conversion(getattr(module, function), registered, module.REMEDY)


def _word(choices: list[str], metavar: str) -> str:
    """Takes the next word off the command line, as a part of the program's name."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"'{sys.argv[0]} {metavar} --help' says more."
    )
    parser.add_argument("word", choices=choices, metavar=metavar, help=f"of {', '.join(choices)}")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...")
    given = parser.parse_args()
    sys.argv = [f"{sys.argv[0]} {given.word}", *given.rest]
    return given.word
