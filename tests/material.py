"""Networks' outputs without networks, and losses from their defaults: what the tests of losses need."""

import torch
from detectron2.config import get_cfg
from torch import Tensor

from fakd.config import add_fakd_config
from fakd.losses import DistillLoss
from fakd.modeling.build import build_distill_losses
from fakd.structures import LossInputs, SegOutput, SegSpec

VOID = 255


def seg_spec(num_classes=5, channels=8, width=6) -> SegSpec:
    """A network with four stages, the first ``width`` channels wide, and an auxiliary head."""
    stages = {f"res{i + 2}": width * 2**i for i in range(4)}
    return SegSpec(num_classes, channels, stages, has_aux=True)


def seg_output(spec: SegSpec, n=2, size=(7, 9), seed=0, dtype=torch.float32, leaves=True) -> SegOutput:
    """Random maps of a network of head stride 8; the logits are linear in the feature, as they must be.

    Args:
        spec: of the network.
        n: number of images.
        size: (h, w) of the feature; stages are 2, 1, 1 and 1 times that large.
        seed: of the numbers.
        dtype: of every map.
        leaves: whether the feature, the classifier, the auxiliary scores and the stages ask for a gradient.
    """
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64).to(dtype).requires_grad_(leaves)

    h, w = size
    feature = draw(n, spec.feature_channels, h, w)
    weight, bias = draw(spec.num_classes, spec.feature_channels), draw(spec.num_classes)
    logits = torch.einsum("ka,nahw->nkhw", weight, feature) + bias[:, None, None]
    stages = {
        name: draw(n, channels, h * scale, w * scale)
        for (name, channels), scale in zip(spec.stage_channels.items(), (2, 1, 1, 1), strict=True)
    }
    return SegOutput(logits, feature, weight, bias, draw(n, spec.num_classes, h, w), stages)


def draw_labels(n=2, size=(7, 9), num_classes=5, seed=0, void=0.2) -> Tensor:
    """(N, h, w) labels with a share of void."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, num_classes, (n, *size), generator=g)
    labels[torch.rand(n, *size, generator=g) < void] = VOID
    return labels


def loss_inputs(student: SegOutput, teacher: SegOutput, labels: Tensor, progress=0.5) -> LossInputs:
    return LossInputs(student, teacher.detach(), labels, labels != VOID, progress)


def build_loss(name: str, student: SegSpec, teacher: SegSpec, **options) -> DistillLoss:
    """A loss as a config builds it, with its defaults but for ``options``, keys without ``KD.<name>``."""
    cfg = get_cfg()
    add_fakd_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.KD.LOSSES = (name,)
    for key, value in options.items():
        assert key in cfg.KD[name], f"KD.{name} has no key {key}"
        cfg.KD[name][key] = value
    return build_distill_losses(cfg, student, teacher)[name]
