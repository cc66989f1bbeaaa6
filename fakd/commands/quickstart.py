"""Trains in minutes, on a generated dataset or on CamVid: a teacher, a student without it, the student with
CWD and with FAKD; and writes a report of what distillation gained.

It uses one seed, which is no evidence; ``fakd study`` runs more. Repeat the command to resume after a stop.
"""

import argparse
from pathlib import Path

import torch

from fakd.config import load_config
from fakd.functional.precision import half_of_device
from fakd.report.report import write_report
from fakd.sweep.local import run_locally
from fakd.sweep.spec import Options, options_of, parse_spec

# Teacher and student with their iterations, which are fewer than the configs say, so that one can wait.
PAIRS = {
    "toyscenes": ("toyscenes/teacher.yaml", 900, "toyscenes/student.yaml", 450),
    "camvid": ("camvid_pretrained/teacher.yaml", 600, "camvid_pretrained/student_lite0.yaml", 400),
}

# The README's table, of the same student and iterations.
SEEDS = {
    "toyscenes": "What five seeds gave, in mIoU: student alone 28.1 ± 0.8, CWD 38.0 ± 1.7, FAKD 35.9 ± 2.8, "
    "of a teacher of 52.3. The runs below are one seed."
}


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--dataset",
        choices=PAIRS,
        default="toyscenes",
        help="toyscenes, which is drawn here, or camvid: photographs of DETECTRON2_DATASETS, with networks "
        "from ImageNet weights, which pip fetches (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder of the runs (default: output/quickstart, output/quickstart_camvid)",
    )
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config options for every run"
    )
    given = parser.parse_args()
    typed = options_of(given.opts)
    teacher, teacher_iterations, student, student_iterations = PAIRS[given.dataset]
    output = given.output or Path(
        "output", "quickstart" if given.dataset == "toyscenes" else "quickstart_camvid"
    )
    spec = {
        "teacher": {"config": f"configs/{teacher}", "opts": {"SOLVER.MAX_ITER": teacher_iterations, **typed}},
        "pairs": {
            "": {"student": f"configs/{student}", "opts": {"SOLVER.MAX_ITER": student_iterations, **typed}}
        },
        "methods": ["student", "cwd_mmseg", "fakd"],
        "opts": {**machine_options(typed), **typed},
    }
    code = run_locally(parse_spec(spec, "the command line"), output)
    if code in (0, 1):
        page = write_report(
            [output],
            output,
            command="fakd quickstart",
            note=SEEDS.get(given.dataset, ""),
            allow_plugins=True,
            allow_pickle=True,
        )
        print(f"Report: {page}")
    return code


def machine_options(typed: Options) -> Options:
    """What makes a step shorter on this machine: mixed precision only where the device is fast at it."""
    words = [str(word) for item in typed.items() for word in item]
    device = torch.device(load_config("configs/toyscenes/teacher.yaml", words).MODEL.DEVICE)
    return {"SOLVER.AMP.ENABLED": bool(half_of_device(device))}
