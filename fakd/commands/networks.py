"""Lists what timm's networks do as backbones: the strides of their maps and the images that they take.

Without a name it takes one network of every family of timm's, which is the table of docs/models.md.
"""

import argparse

import timm

from fakd.modeling.backbones.survey import TABLE_HEAD, families, survey


def main() -> None:
    """Does what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pattern", nargs="*", metavar="NAME", help="of timm; * stands for any letters")
    patterns = parser.parse_args().pattern
    names = [name for pattern in patterns for name in timm.list_models(pattern) or [pattern]]
    print(TABLE_HEAD)
    for name in names or families():
        print(survey(name), flush=True)
