"""Two processes report what the weights they save reach."""

import torch
from detectron2.utils import comm
from integration.conftest import assert_same_weights, tiny_config, weights
from ranks import on_ranks

from fakd.engine import Trainer


def train(folder):
    # On the CPU no batch norm is shared: each process has statistics of its own half of the batches.
    trainer = Trainer(tiny_config(folder))
    trainer.resume_or_load(resume=False)
    evaluated = {}

    def note(model, inputs):
        if not model.training:
            evaluated.update({name: value.clone() for name, value in model.state_dict().items()})

    trainer.model.module.register_forward_pre_hook(note)
    trainer.train()
    torch.save({"model": evaluated}, folder / f"evaluated{comm.get_rank()}.pth")


def test_every_process_evaluates_the_weights_that_are_saved(tmp_path):
    on_ranks(train, 2, tmp_path)
    for rank in range(2):
        assert_same_weights(weights(tmp_path / f"evaluated{rank}.pth"), weights(tmp_path / "model_final.pth"))
