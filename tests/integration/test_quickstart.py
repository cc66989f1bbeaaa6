"""What the quickstart asks of the machine it runs on."""

import re
from pathlib import Path

import pytest
import torch
from trees import TREES

from fakd.commands.quickstart import PAIRS, SEEDS, machine_options, main


@pytest.mark.parametrize("known", [{}, {"avx512_bf16": True}])
def test_mixed_precision_only_where_the_processor_is_fast_at_it(monkeypatch, known):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    options = machine_options({"MODEL.DEVICE": "cpu"})
    assert options == {"SOLVER.AMP.ENABLED": bool(known)}


def test_the_note_beside_one_seed_is_the_readme_s_row_of_several():
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    row = re.search(r"\| `toyscenes`, 450 iterations.*", readme)[0]
    teacher, *students = re.findall(r"\d+\.\d(?: ± \d+\.\d)?", row)
    note = SEEDS["toyscenes"]
    assert re.findall(r"\d+\.\d(?: ± \d+\.\d)?", note) == [*students, teacher]
    assert ", 5 seeds" in row and "What five seeds" in note
    assert PAIRS["toyscenes"][3] == 450


def test_camvid_by_one_flag(tmp_path, monkeypatch):
    TREES["camvid"].make(tmp_path / "datasets")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
    monkeypatch.chdir(tmp_path)
    # Tiny, and without the weights that pip fetches.
    words = "MODEL.BACKBONE.PRETRAINED none MODEL.PIXEL_MEAN [127.5,127.5,127.5] "
    words += "MODEL.PIXEL_STD [127.5,127.5,127.5] INPUT.CROP.SIZE [32,32] SOLVER.MAX_ITER 1"
    monkeypatch.setattr("sys.argv", ["quickstart", "--dataset", "camvid", *words.split()])
    assert main() == 0
    page = (tmp_path / "output" / "quickstart_camvid" / "report.md").read_text()
    assert "camvid_test" in page
