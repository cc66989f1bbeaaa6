"""Analyses networks and finished runs.

``model`` prints the cost of a network and the maps it offers to distillation, beside its teacher. ``compare``
writes a page of plots and tables on how finished runs differ.
"""

import argparse
from pathlib import Path

from fakd.config import NO_RECIPE, load_config
from fakd.engine.model_summary import summarize, summary_table
from fakd.report.report import write_report

from . import typed
from .arguments import add_reading, at_least


def _model(args: argparse.Namespace) -> None:
    cfg = load_config(args.config_file, args.opts, recipe=NO_RECIPE)
    teacher_file = args.teacher_config or cfg.KD.TEACHER.CONFIG_FILE
    summaries = [summarize(cfg, Path(args.config_file).stem, tuple(args.size))]
    if teacher_file:
        teacher = load_config(teacher_file, recipe=NO_RECIPE)
        teacher.MODEL.SEM_SEG_HEAD.NUM_CLASSES = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        summaries.append(summarize(teacher, f"teacher {Path(teacher_file).stem}", tuple(args.size)))
    print(summary_table(summaries))


def _compare(args: argparse.Namespace) -> None:
    command = typed()
    page = write_report(
        args.runs,
        args.output,
        command=command,
        baseline=args.baseline,
        num_images=args.images,
        name="compare",
        allow_plugins=args.allow_plugins,
        allow_pickle=args.allow_pickle,
    )
    print(page)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser("model", help="print parameters, GFLOPs, stride and taps of a network")
    one.add_argument("--config-file", required=True, metavar="FILE")
    one.add_argument("--teacher-config", default="", metavar="FILE", help="default: KD.TEACHER.CONFIG_FILE")
    one.add_argument("--size", type=at_least(1), nargs=2, default=(512, 512), metavar=("H", "W"))
    one.add_argument("--opts", nargs="*", default=[], metavar="KEY VALUE")
    one.set_defaults(command=_model)
    several = commands.add_parser(
        "compare",
        help="write a page on how finished runs differ",
        description="Writes DIR/compare.html, the report of ``fakd report``: IoU per class, gains over "
        "difficulty and frequency, confusions that changed, predictions with maps of errors, "
        "activations, losses, lambda and covariances over training. Runs that differ only in their seed are "
        "averaged.",
    )
    several.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="OUTPUT_DIR of a finished run, a folder that contains several, or a file of kept lines",
    )
    several.add_argument(
        "--baseline",
        metavar="RUN",
        help="run that the others are compared with (default: the student without a teacher)",
    )
    several.add_argument("--output", default="output/compare", metavar="DIR", help="default: %(default)s")
    add_reading(several)
    several.set_defaults(command=_compare)
    args = parser.parse_args()
    args.command(args)
