"""Trains on a generated dataset, in minutes: a teacher, a student without it, the student with CWD and with
FAKD; and writes a report of what distillation gained.

It uses one seed, which is no evidence; ``fakd study`` runs more. Repeat the command to resume after a stop.
"""

import argparse
from pathlib import Path

import torch

from fakd.config import load_config
from fakd.engine.teacher_form import half_of_device
from fakd.report.report import write_report
from fakd.sweep.local import run_locally
from fakd.sweep.spec import Options, options_of, parse_spec

TEACHER = "configs/toyscenes/teacher.yaml"


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("output/quickstart"),
        help="folder of the runs (default: %(default)s)",
    )
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config options for every run"
    )
    given = parser.parse_args()
    typed = options_of(given.opts)
    # Shorter than the configs say, so that one can wait for it.
    teacher = {"config": TEACHER, "opts": {"SOLVER.MAX_ITER": 900, **typed}}
    student = {"student": "configs/toyscenes/student.yaml", "opts": {"SOLVER.MAX_ITER": 450, **typed}}
    spec = {
        "teacher": teacher,
        "pairs": {"": student},
        "methods": ["student", "cwd_mmseg", "fakd"],
        "opts": {**machine_options(typed), **typed},
    }
    code = run_locally(parse_spec(spec, "the command line"), given.output)
    if code in (0, 1):
        page = write_report(
            [given.output], given.output, command="fakd quickstart", allow_plugins=True, allow_pickle=True
        )
        print(f"Report: {page}")
    return code


def machine_options(typed: Options) -> Options:
    """What makes a step shorter on this machine: mixed precision only where the device is fast at it."""
    words = [str(word) for item in typed.items() for word in item]
    device = torch.device(load_config(TEACHER, words).MODEL.DEVICE)
    return {"MODEL.CHANNELS_LAST": True, "SOLVER.AMP.ENABLED": bool(half_of_device(device))}
