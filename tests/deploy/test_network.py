"""What is exported computes what is evaluated."""

import pytest
import torch
from material import small_segmentor
from torch import nn

from fakd.deploy.network import DeployedNetwork, ProductPool, exportable
from fakd.registry import DECODE_HEAD_REGISTRY


@pytest.mark.parametrize("size", [1, 2, 3, 6])
@pytest.mark.parametrize("shape", [(7, 9), (12, 6), (5, 64), (6, 6)])
def test_the_pool_is_pytorch_s(size, shape):
    x = torch.randn(2, 3, *shape)
    torch.testing.assert_close(ProductPool(size)(x), nn.AdaptiveAvgPool2d(size)(x))


def test_scores_are_those_of_evaluation_and_the_auxiliary_head_stays_at_home():
    network = small_segmentor().eval()
    deployed = DeployedNetwork(network)
    image = 255 * torch.rand(3, 45, 61)
    with torch.no_grad():
        expected = network([{"image": image}])[0]["sem_seg"]
        torch.testing.assert_close(deployed(image[None])[0], expected)
        plain = DeployedNetwork(network, normalize=False)
        torch.testing.assert_close(plain(network.normalize(image[None]))[0], expected)
    assert network.auxiliary_head is not None  # the network that was given is left alone
    assert not any("auxiliary" in name for name, _ in deployed.named_parameters())


@pytest.mark.parametrize("head", dict(DECODE_HEAD_REGISTRY))
def test_the_exportable_form_of_every_head_computes_the_same(head):
    network = DeployedNetwork(small_segmentor(head=head))
    image = 255 * torch.rand(2, 3, 57, 83)
    with torch.no_grad():
        torch.testing.assert_close(exportable(network)(image), network(image), rtol=1e-4, atol=1e-5)
    pools = [m for m in exportable(network).modules() if isinstance(m, nn.AdaptiveAvgPool2d)]
    assert all(pool.output_size == 1 for pool in pools)
