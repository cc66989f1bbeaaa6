"""The command line of every preparation."""

import argparse
import inspect
from collections.abc import Callable
from pathlib import Path

from ..datasets.folders import datasets_root


def run_conversion(convert: Callable[..., None], dataset: str, remedy: str) -> None:
    """Parses the options that ``convert`` has and calls it.

    Args:
        convert: (root, ...) with any of ``download`` and ``workers``.
        dataset: name as registered, without split.
        remedy: what to fetch and where it goes.
    """
    summary = (inspect.getdoc(convert) or "").splitlines()[0]
    parser = argparse.ArgumentParser(
        description=f"{summary} Finished files are kept: repeat the command to continue.", epilog=remedy
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=Path(datasets_root()),
        help="folder of all datasets (default: DETECTRON2_DATASETS, %(default)s)",
    )
    options = inspect.signature(convert).parameters
    if "download" in options:
        parser.add_argument("--download", action="store_true", help="fetch and unpack the archives first")
    if "workers" in options:
        parser.add_argument(
            "--workers", type=int, default=0, help="number of processes (default: all processors)"
        )
    convert(**vars(parser.parse_args()))
    print(f"Done. To check it: fakd data check {dataset}_train {dataset}_val")
