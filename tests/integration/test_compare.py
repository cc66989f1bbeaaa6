"""The comparison of runs that were really trained."""

import numpy as np
from PIL import Image

from fakd.report.report import write_report


def test_trained_runs_are_compared_by_numbers_and_pictures(tiny, teacher, tmp_path):
    tiny(tmp_path / "alone", "SOLVER.MAX_ITER", 6)
    tiny(tmp_path / "fakd", *teacher, "SOLVER.MAX_ITER", 6, recipe="fakd")
    tiny(tmp_path / "cwd", *teacher, "SOLVER.MAX_ITER", 6, recipe="cwd")
    (tmp_path / "cwd" / "model_final.pth").unlink()
    folders = [tmp_path / name for name in ("alone", "fakd", "cwd")]
    # In this process, which knows the losses of all plugins, whose keys are in the configs of its runs.
    page = write_report(folders, tmp_path / "out", name="compare", allow_plugins=True)
    assert page == tmp_path / "out" / "compare.html"
    text = (tmp_path / "out" / "compare.md").read_text()
    for heading in ("Hard and easy classes", "Frequent and rare classes", "Confusions that changed most"):
        assert f"## {heading}" in text
    assert "cwd: missing from the pictures of predictions" in text and "model_final.pth" in text
    assert "Seeds: student 0, fakd 0." in text
    wide = Image.open(tmp_path / "out" / "pictures" / "activations.png")
    panels = Image.open(tmp_path / "out" / "pictures" / "panels.png")
    # Image, teacher, student, fakd and fakd augmented; image, truth, teacher, student, fakd.
    assert wide.size[0] == panels.size[0] == 5 * 300
    assert len(np.unique(np.asarray(wide.convert("RGB")).reshape(-1, 3), axis=0)) > 200
