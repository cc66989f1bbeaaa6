"""Checks datasets: number of images, every file, sizes, ids; prints the classes and draws a contact sheet."""

import argparse

from tabulate import tabulate

from fakd.data.check import SHOWN, check_dataset
from fakd.data.datasets.custom import register_custom


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="name of a registered dataset, such as camvid_train, or of one in --custom",
    )
    parser.add_argument(
        "--custom", action="append", metavar="FILE", help="yaml file that describes your own data"
    )
    parser.add_argument(
        "--output",
        default="output/datasets",
        metavar="DIR",
        help="folder for <NAME>.png (default: %(default)s)",
    )
    parser.add_argument(
        "--images",
        type=int,
        default=SHOWN,
        metavar="N",
        help="images on the contact sheet (default: %(default)s)",
    )
    parser.add_argument(
        "--workers", type=int, default=0, help="number of processes (default: all processors)"
    )
    given = parser.parse_args()
    names = register_custom(given.custom)
    names = given.names or names
    if not names:
        parser.error("name a dataset or give --custom FILE")
    for name in names:
        sheet = f"{given.output}/{name}.png"
        found = check_dataset(name, sheet, given.workers, given.images)
        total = sum(found.pixels.values())
        rows = [(label, number, 100 * number / total) for label, number in found.pixels.items()]
        print(tabulate(rows, [name, "pixels", "%"], floatfmt=("", "", ".2f")))
        print(
            f"{found.images} images from {found.sizes[0]} to {found.sizes[1]} (height, width); all readable."
        )
        print(f"Classes that never occur: {', '.join(found.absent) or 'none'}. Look at {sheet}")
