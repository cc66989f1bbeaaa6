"""What the quickstart asks of the machine it runs on."""

import pytest
import torch

from fakd.commands.quickstart import machine_options


@pytest.mark.parametrize("known", [{}, {"avx512_bf16": True}])
def test_mixed_precision_only_where_the_processor_is_fast_at_it(monkeypatch, known):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    options = machine_options({"MODEL.DEVICE": "cpu"})
    assert options == {"MODEL.CHANNELS_LAST": True, "SOLVER.AMP.ENABLED": bool(known)}
