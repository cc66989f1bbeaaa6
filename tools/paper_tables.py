#!/usr/bin/env python3
"""Fills the tables of a project's README: the paper's values beside what the experiments reached here.

Run experiments at full length with tools/train_net.py --experiment, which writes into
output/<project>/<experiment>; more seeds go into OUTPUT_DIR output/<project>/<experiment>/seed<N>. This adds
them to projects/<project>/results.json and writes the tables anew. Runs of other lengths, crops or batches
are named and left out.
"""

import argparse
import sys
from pathlib import Path

from fakd.errors import call_tool
from fakd.report.paper_tables import collect_results, write_tables


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("projects", nargs="+", metavar="PROJECT", help="for instance FAKD")
    parser.add_argument("--output", type=Path, default=Path("output"), help="default: %(default)s")
    given = parser.parse_args()
    for project in given.projects:
        for sentence in collect_results(project, given.output):
            print(sentence, file=sys.stderr)
        print(write_tables(project))


if __name__ == "__main__":
    sys.exit(call_tool(main))
