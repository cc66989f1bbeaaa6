"""SOLVER.EMA_DECAY: the average is tested and kept; training goes on from the weights themselves."""

import pytest
import torch
from detectron2.engine import HookBase

from fakd.engine import evaluate, run

from .conftest import assert_same_weights, tiny_config, weights

DECAY = 0.6


class Steps(HookBase):
    """The student's weights after every step."""

    def __init__(self):
        self.seen = []

    def after_step(self):
        state = self.trainer.checkpointer.model.state_dict()
        self.seen.append({name: x.clone() for name, x in state.items()})

    def before_train(self):
        self.after_step()


def average_of(first, steps):
    average = {name: x.clone() for name, x in first.items() if x.is_floating_point()}
    for t, live in enumerate(steps):
        decay = min(DECAY, (1 + t) / (10 + t))
        for name in average:
            average[name] = decay * average[name] + (1 - decay) * live[name]
    return average


@pytest.mark.parametrize("recipe", ["student", "pd"])
def test_the_average_is_kept_and_training_is_untouched(teacher, tmp_path, recipe):
    options = ["SOLVER.MAX_ITER", 8, "TEST.EVAL_PERIOD", 3, *(teacher if recipe != "student" else [])]
    plain, averaged = Steps(), Steps()
    run(tiny_config(tmp_path / "plain", *options, recipe=recipe), extra_hooks=[plain])
    averaged_config = tiny_config(tmp_path / "averaged", *options, "SOLVER.EMA_DECAY", DECAY, recipe=recipe)
    metrics = run(averaged_config, extra_hooks=[averaged])
    assert_same_weights(averaged.seen[-1], plain.seen[-1])
    kept = weights(tmp_path / "averaged" / "model_final.pth")
    for name, x in average_of(averaged.seen[0], averaged.seen[1:]).items():
        torch.testing.assert_close(kept[name], x)
    assert not torch.equal(kept["decode_head.conv_seg.weight"], plain.seen[-1]["decode_head.conv_seg.weight"])
    assert metrics == pytest.approx(evaluated(tmp_path / "averaged"), nan_ok=True)


def evaluated(folder):
    return evaluate(tiny_config(folder, "MODEL.WEIGHTS", folder / "model_final.pth"))


def test_a_resumed_run_has_the_same_average(tiny, tmp_path):
    options = ["SOLVER.EMA_DECAY", DECAY]

    class Stops(HookBase):
        def after_step(self):
            if self.trainer.iter == 6:
                raise RuntimeError("stopped")

    whole = tiny(tmp_path / "whole", *options)
    with pytest.raises(RuntimeError, match="stopped"):
        tiny(tmp_path / "stopped", *options, extra_hooks=[Stops()])
    assert tiny(tmp_path / "stopped", *options, resume=True) == pytest.approx(whole, nan_ok=True)
    for name in ("model_final.pth", "model_best.pth"):
        assert_same_weights(weights(tmp_path / "stopped" / name), weights(tmp_path / "whole" / name))
