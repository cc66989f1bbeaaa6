#!/usr/bin/env python3
"""Looks at networks: ``model`` prints what one costs and shows to distillation, beside its teacher."""

import argparse
import sys
from pathlib import Path

from fakd.analysis.model_summary import describe, summarize
from fakd.config import NO_RECIPE, load_config
from fakd.engine.cli import call_tool


def model(args: argparse.Namespace) -> None:
    cfg = load_config(args.config_file, args.opts, recipe=NO_RECIPE)
    teacher_file = args.teacher_config or cfg.KD.TEACHER.CONFIG_FILE
    summaries = [summarize(cfg, Path(args.config_file).stem, tuple(args.size))]
    if teacher_file:
        teacher = load_config(teacher_file, recipe=NO_RECIPE)
        teacher.MODEL.SEM_SEG_HEAD.NUM_CLASSES = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        summaries.append(summarize(teacher, f"teacher {Path(teacher_file).stem}", tuple(args.size)))
    print(describe(summaries))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser("model", help="parameters, GFLOPs, stride and taps of a network")
    one.add_argument("--config-file", required=True, metavar="FILE")
    one.add_argument("--teacher-config", default="", metavar="FILE", help="default: KD.TEACHER.CONFIG_FILE")
    one.add_argument("--size", type=int, nargs=2, default=(512, 512), metavar=("H", "W"))
    one.add_argument("--opts", nargs="*", default=[], metavar="KEY VALUE")
    one.set_defaults(command=model)
    args = parser.parse_args()
    args.command(args)


if __name__ == "__main__":
    sys.exit(call_tool(main))
