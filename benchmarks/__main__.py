"""All bars: ``python -m benchmarks``."""

import sys

from . import contrast, fast, losses, relation, step, sweep, tables
from .report import Report, main


def fill(report: Report) -> None:
    for part in (losses, tables, relation, contrast, step, fast, sweep):
        part.fill(report)


if __name__ == "__main__":
    sys.exit(main(fill))
