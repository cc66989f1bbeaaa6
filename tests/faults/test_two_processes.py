"""Two processes report what the weights they save reach."""

import json

import pytest
from detectron2.utils import comm
from integration.conftest import tiny_config
from ranks import on_ranks

from fakd.engine import run


def train(folder):
    # On the CPU no batch norm is shared: each process has statistics of its own half of the batches.
    metrics = run(tiny_config(folder, "TEST.EVAL_PERIOD", 8))
    if comm.is_main_process():
        (folder / "reported.json").write_text(json.dumps(metrics))


def test_the_reported_metrics_are_those_of_the_saved_weights(tiny, tmp_path):
    on_ranks(train, 2, tmp_path)
    reported = json.loads((tmp_path / "reported.json").read_text())
    assert tiny(tmp_path, eval_only=True) == pytest.approx(reported, nan_ok=True)
    best = tiny(tmp_path, "MODEL.WEIGHTS", tmp_path / "model_best.pth", eval_only=True)
    result = json.loads((tmp_path / "result.json").read_text())
    assert best["mIoU"] == pytest.approx(result["best"]["mIoU"])
