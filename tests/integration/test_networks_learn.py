"""A convolutional network, one with attention and a transformer, narrowed, learn a few scenes."""

import pytest
import torch

from fakd.config import load_config
from fakd.engine.optimizer import build_optimizer
from fakd.modeling.build import build_segmentor

from .conftest import scenes

NARROW = "MODEL.BACKBONE.WIDTH 0.125 SOLVER.BASE_LR 0.1"
NARROW_MIT = (
    "MODEL.BACKBONE.TIMM_OPTIONS ('embed_dims',(8,16,40,64)) SOLVER.OPTIMIZER AdamW SOLVER.BASE_LR 0.003"
)
NETWORKS = {"deeplabv3_r18": NARROW, "isanet_r18": NARROW, "segformer_b0": NARROW_MIT}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_few_scenes_are_learnt(name):
    options = f"MODEL.DEVICE cpu MODEL.SEM_SEG_HEAD.CHANNELS 16 {NETWORKS[name]}"
    cfg = load_config(f"configs/_base_/models/{name}.yaml", options.split())
    network = build_segmentor(cfg).train()
    optimizer = build_optimizer(cfg, network)
    batch = scenes(4, 64)
    for _ in range(40):
        sum(network(batch).values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    network.eval()
    with torch.no_grad():
        predicted = torch.stack([scores["sem_seg"].argmax(0) for scores in network(batch)])
    labels = torch.stack([item["sem_seg"] for item in batch]).long()
    valid = labels != 255
    commonest = labels[valid].bincount().max() / valid.sum()
    right = (predicted == labels)[valid].float().mean()
    assert right > commonest + 0.15
