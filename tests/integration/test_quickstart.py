"""What the quickstart asks of the machine it runs on."""

import pytest
import torch
from trees import TREES

from fakd.commands.quickstart import machine_options, main


@pytest.mark.parametrize("known", [{}, {"avx512_bf16": True}])
def test_mixed_precision_only_where_the_processor_is_fast_at_it(monkeypatch, known):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    options = machine_options({"MODEL.DEVICE": "cpu"})
    assert options == {"SOLVER.AMP.ENABLED": bool(known)}


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
