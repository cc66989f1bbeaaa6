"""The loss of projects/FewLabels against sums over single pixels."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import reference
import torch
from material import draw_labels, loss_inputs, seg_output, seg_spec

from fakd.config import load_config
from fakd.registry import DISTILL_LOSS_REGISTRY

PLUGIN = Path(__file__).parents[2] / "projects" / "FewLabels" / "pseudo_label_loss.py"
SPEC = seg_spec(5, 8)


def value(inputs):
    load_config(opts=["PLUGINS", f"('{PLUGIN}',)"])
    loss = DISTILL_LOSS_REGISTRY.get("PseudoLabel")
    return loss(loss.Config(), SPEC, SPEC)(inputs)


def inputs():
    given = loss_inputs(seg_output(SPEC), seg_output(SPEC, seed=1), draw_labels())
    unlabelled = torch.zeros(2, 9, 11, dtype=torch.bool)
    unlabelled[1] = True
    return replace(given, unlabelled=unlabelled)


def test_value_by_hand():
    given, values = inputs(), []
    for y in range(9):
        for x in range(11):
            if given.valid[1, y, x]:
                share = reference.softmax(given.student.logits[1, :, y, x].tolist())
                values.append(-math.log(share[given.labels[1, y, x]]))
    assert value(given).item() == pytest.approx(sum(values) / len(values), rel=1e-5)


def test_it_is_zero_with_a_gradient_where_nothing_is_unlabelled_or_sure():
    given = inputs()
    for other in (replace(given, unlabelled=None), replace(given, valid=torch.zeros_like(given.valid))):
        result = value(other)
        result.backward(retain_graph=True)
        assert result.item() == 0
