"""Two processes do what one does with all the data."""

import json

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.utils import comm
from ranks import on_ranks

from fakd.engine import Trainer, evaluate, evaluate_weights, run
from fakd.engine.run_folder import RunFolder

from .conftest import tiny_config


class FrozenTrainer(Trainer):
    """Batch norm is frozen: on the CPU each process would use the statistics of its half of the batch."""

    @classmethod
    def build_model(cls, cfg):
        return FrozenBatchNorm2d.convert_frozen_batchnorm(super().build_model(cfg))


def train(folder, opts, recipe):
    # A mean over all pixels, so that two halves average to the whole. Dropout draws per process, so it is
    # off, and with it the auxiliary head, which always has it.
    fixed = ["MODEL.SEM_SEG_HEAD.LOSS_MEAN", "all", "MODEL.SEM_SEG_HEAD.DROPOUT", 0.0]
    fixed += ["MODEL.AUXILIARY_HEAD.WEIGHT", 0.0, "SOLVER.MAX_ITER", 4, "DATASETS.TEST", "()"]
    cfg = tiny_config(folder, *fixed, *opts, recipe=recipe)
    torch.manual_seed(0)
    trainer = FrozenTrainer(cfg)
    trainer._trainer.gather_metric_period = 1
    trainer.resume_or_load(resume=False)
    trainer.train()
    if comm.is_main_process():
        losses = {
            name: history.values() for name, history in trainer.storage.histories().items() if "loss" in name
        }
        (folder / "losses.json").write_text(json.dumps(losses))


@pytest.mark.parametrize(("recipe", "accumulate"), [("student", 2), ("fakd", 1)])
def test_two_processes_equal_one(teacher, tmp_path, recipe, accumulate):
    one, two = tmp_path / "one", tmp_path / "two"
    opts = [*teacher, "SOLVER.ACCUMULATE", accumulate]
    for folder, processes in ((one, 1), (two, 2)):
        folder.mkdir()
        on_ranks(train, processes, folder, opts, recipe)
    losses = [json.loads((folder / "losses.json").read_text()) for folder in (one, two)]
    assert losses[0].keys() == losses[1].keys() and len(losses[0]["total_loss"]) == 4
    for name in losses[0]:
        values = [[value for value, _ in run[name]] for run in losses]
        assert values[1] == pytest.approx(values[0], rel=2e-4), name
    weights = [torch.load(folder / "model_final.pth")["model"] for folder in (one, two)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-5)


def evaluate_given(folder, weights):
    if not comm.is_main_process():
        RunFolder.write_config = RunFolder.write_result = None  # whoever calls it fails
    evaluate_weights(tiny_config(folder, "MODEL.WEIGHTS", weights), "teacher", "")
    assert RunFolder(folder).metrics().flat()


def test_the_first_of_two_processes_writes_what_given_weights_reach(teacher, tmp_path):
    """The others have no metrics, and find the result when they return."""
    on_ranks(evaluate_given, 2, tmp_path, teacher[-1])
    assert (tmp_path / "config.yaml").exists()


def train_averaged(folder):
    run(tiny_config(folder, "SOLVER.EMA_DECAY", 0.6, "SOLVER.MAX_ITER", 4))


def test_what_two_processes_test_is_what_the_first_has_saved(tmp_path):
    """Each has averaged the statistics of its own batches."""
    on_ranks(train_averaged, 2, tmp_path)
    saved = evaluate(tiny_config(tmp_path, "MODEL.WEIGHTS", str(tmp_path / "model_final.pth")))
    assert RunFolder(tmp_path).metrics().flat() == pytest.approx(saved, nan_ok=True)
