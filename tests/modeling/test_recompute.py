"""That blocks computed twice change nothing but the memory."""

import pytest
import torch

from fakd.config import load_config
from fakd.engine.step_cost import allocations
from fakd.modeling.build import build_segmentor
from fakd.modeling.quantized import begin, prepare
from fakd.modeling.recompute import recompute_blocks


def network(name, stride, recompute):
    torch.manual_seed(0)
    words = ["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.TIMM_NAME", name, "MODEL.BACKBONE.OUTPUT_STRIDE", stride]
    words += ["MODEL.BACKBONE.WIDTH", 1.0, "MODEL.BACKBONE.STEM", "7x7", "MODEL.AUXILIARY_HEAD.WEIGHT", 0.0]
    words += ["MODEL.ACTIVATION_CHECKPOINTING", recompute]
    cfg = load_config("configs/toyscenes/student.yaml", [str(word) for word in words])
    return build_segmentor(cfg).train()


def stepped(model, images):
    """(loss, its gradients, buffers) after one forward and backward pass, dropout included."""
    torch.manual_seed(1)
    loss = model.encode(images).logits.square().mean()
    loss.backward()
    return (
        loss.detach(),
        [p.grad for p in model.parameters() if p.grad is not None],
        dict(model.named_buffers()),
    )


@pytest.mark.parametrize(
    ("name", "stride"),
    [
        ("resnet18", 8),
        ("efficientnet_lite0", 16),
        ("hrnet_w18_small", 32),
        ("mit_b0", 32),
        ("convnext_atto", 32),
    ],
)
def test_gradients_and_running_statistics_are_those_without(name, stride):
    images = 255 * torch.rand(2, 3, 64, 64)
    plain, recomputed = (stepped(network(name, stride, each), images) for each in (False, True))
    torch.testing.assert_close(recomputed, plain, rtol=0, atol=0)


def test_ranges_of_int8_see_a_batch_once():
    images = 255 * torch.rand(2, 3, 64, 64)
    models = [network("resnet18", 8, each) for each in (False, True)]
    for model in models:
        prepare(model, (64, 64))
        begin(model)
        stepped(model, images)  # sets the ranges
        model.zero_grad()
    plain, recomputed = (stepped(model, images / 2) for model in models)
    torch.testing.assert_close(recomputed, plain, rtol=0, atol=0)


def test_it_saves_memory():
    images = 255 * torch.rand(4, 3, 96, 96)  # so that maps outweigh what a convolution needs meanwhile
    peaks = []
    for recompute in (False, True):
        model = network("resnet50", 8, recompute)
        stepped(model, images)  # so that gradients exist already
        peaks.append(allocations(lambda model=model: stepped(model, images))[0])
    assert peaks[1] < 0.6 * peaks[0]


def test_nothing_is_computed_twice_in_evaluation():
    model = network("resnet18", 8, True).eval()
    calls = []
    model.backbone.net.layer1[0].conv1.register_forward_hook(lambda *_: calls.append(1))
    model.encode(torch.rand(1, 3, 64, 64)).logits.sum().backward()
    assert len(calls) == 1


def test_a_network_without_blocks_is_refused(monkeypatch):
    assert recompute_blocks(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.ReLU())) == 0
    monkeypatch.setattr("fakd.modeling.segmentor.recompute_blocks", lambda backbone: 0)
    with pytest.raises(ValueError, match="MODEL.ACTIVATION_CHECKPOINTING.*no blocks"):
        network("resnet18", 8, True)
