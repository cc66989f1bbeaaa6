"""Lists timm's networks as backbones: the strides of their maps and the image sizes they accept.

Without a name it takes one network of every family of timm, as in the table of docs/models.md.
"""

import argparse

import timm

from fakd.modeling.backbones.survey import TABLE_HEAD, families, survey


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "pattern", nargs="*", metavar="NAME", help="timm's name of a network; * matches any letters"
    )
    patterns = parser.parse_args().pattern
    names = [name for pattern in patterns for name in timm.list_models(pattern) or [pattern]]
    print(TABLE_HEAD)
    for name in names or families():
        print(survey(name), flush=True)
