"""The critic's shapes and its spectral norms; the adapter."""

import pytest
import torch
from torch import nn

from fakd.layers import Critic, build_adapter
from fakd.layers.discriminator import SelfAttention


@pytest.mark.parametrize(
    "size, out", [((64, 64), (1, 1)), ((65, 65), (1, 1)), ((64, 128), (1, 5)), ((97, 97), (3, 3))]
)
def test_output_map(size, out):
    with torch.device("meta"):
        assert Critic(19)(torch.empty(2, 19, *size)).shape == (2, 1, *out)


def test_size():
    assert sum(p.numel() for p in Critic(19).parameters()) == 3_191_721


@pytest.mark.parametrize("widths, least", [((64, 128, 256, 512), 64), ((8,), 8), ((), 4)])
def test_smallest_map(widths, least):
    critic = Critic(3, widths)
    assert critic.min_size == least
    with torch.device("meta"):
        meta = Critic(3, widths)
        assert meta(torch.empty(1, 3, least, least)).shape == (1, 1, 1, 1)
        with pytest.raises(RuntimeError):
            meta(torch.empty(1, 3, least, least - 1))


def test_convolutions_have_spectral_norm_one():
    critic = Critic(5, (8, 8, 16, 16))
    for _ in range(20):  # one power iteration each
        critic(torch.randn(2, 5, 64, 64))
    strided = [m for m in critic.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    norms = [torch.linalg.matrix_norm(m.weight.flatten(1), 2).item() for m in strided]
    assert norms == pytest.approx([1.0] * 4, abs=0.02)


def test_attention_by_hand():
    layer = SelfAttention(16)
    x = torch.randn(2, 16, 3, 4)
    assert torch.equal(layer(x), x)  # gamma is zero at first
    nn.init.constant_(layer.gamma, 0.7)
    got = layer(x)
    q, k, v = (f(x) for f in (layer.query, layer.key, layer.value))
    for n in range(2):
        for i in range(12):
            score = torch.stack([q[n].flatten(1)[:, i] @ k[n].flatten(1)[:, j] for j in range(12)])
            mean = v[n].flatten(1) @ score.softmax(0)
            torch.testing.assert_close(
                got[n].flatten(1)[:, i], x[n].flatten(1)[:, i] + 0.7 * mean, rtol=1e-4, atol=1e-5
            )


def test_an_adapter_only_where_channels_differ():
    assert isinstance(build_adapter("CWD", 8, 8, norm=True), nn.Identity)
    bare, normed = build_adapter("CWD", 8, 12), build_adapter("CWD", 8, 12, norm=True)
    assert [p.shape for p in bare.parameters()] == [(12, 8, 1, 1)]
    assert len(list(normed.parameters())) == 3
    assert normed(torch.randn(2, 8, 3, 3)).min() >= 0
