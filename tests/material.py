"""Networks' outputs without networks, and losses from their defaults: what the tests of losses need."""

from pathlib import Path
from typing import Any

import torch
from detectron2.config import get_cfg
from torch import Tensor

from fakd.config import add_fakd_config, load_config
from fakd.losses import DistillLoss
from fakd.modeling import FCNHead, Segmentor, TimmBackbone
from fakd.modeling.build import build_distill_losses
from fakd.registry import DECODE_HEAD_REGISTRY, DISTILL_LOSS_REGISTRY
from fakd.structures import LossInputs, SegOutput, SegSpec

VOID = 255
TEMPLATE = Path(__file__).parents[1] / "projects" / "ExampleMethod" / "example_method.py"
# Options without which a loss refuses maps as small as those here.
SMALL_MAPS: dict[str, dict[str, Any]] = {"SKDSHolistic": {"WIDTHS": (4,)}}


def registered_losses() -> dict[str, type[DistillLoss]]:
    """Every loss by name, the template that outsiders copy among them."""
    load_config(opts=["PLUGINS", f"('{TEMPLATE}',)"])
    return dict(DISTILL_LOSS_REGISTRY)


def seg_spec(num_classes=5, channels=8, width=6) -> SegSpec:
    """A network with four stages, the first ``width`` channels wide, and an auxiliary head."""
    stages = {f"res{i + 2}": width * 2**i for i in range(4)}
    return SegSpec(num_classes, channels, stages)


def seg_output(spec: SegSpec, n=2, size=(9, 11), seed=0, dtype=torch.float32, device="cpu") -> SegOutput:
    """Random maps of a network of head stride 8; the logits are linear in the feature, as they must be.

    Args:
        spec: of the network.
        n: number of images.
        size: (h, w) of the feature; stages are 2, 1, 1 and 1 times that large.
        seed: of the numbers.
        dtype: of every map.
        device: where they are; drawn on the CPU.

    Returns:
        Maps whose leaves (feature, classifier, auxiliary scores and stages) ask for a gradient.
    """
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64).to(device, dtype).requires_grad_()

    h, w = size
    feature = draw(n, spec.feature_channels, h, w)
    weight, bias = draw(spec.num_classes, spec.feature_channels), draw(spec.num_classes)
    logits = torch.einsum("ka,nahw->nkhw", weight, feature) + bias[:, None, None]
    stages = {
        name: draw(n, channels, h * scale, w * scale)
        for (name, channels), scale in zip(spec.stage_channels.items(), (2, 1, 1, 1), strict=True)
    }
    return SegOutput(logits, feature, weight, bias, draw(n, spec.num_classes, h, w), stages)


def draw_labels(n=2, size=(9, 11), num_classes=5, seed=0, void=0.2, device="cpu") -> Tensor:
    """(N, h, w) labels with a share of void."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, num_classes, (n, *size), generator=g)
    return labels.masked_fill_(torch.rand(n, *size, generator=g) < void, VOID).to(device)


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


def small_segmentor(
    width=0.0625, channels=8, num_classes=5, head="PSPHead", input_format="RGB", seed=0, **options
) -> Segmentor:
    """A ResNet-18 of a few channels with a decode head and an auxiliary one, in training mode."""
    torch.manual_seed(seed)
    backbone = TimmBackbone(name="resnet18", output_stride=8, width=width)
    in_channels = {name: shape.channels for name, shape in backbone.output_shape().items()}
    options = {"pixel_mean": (120.0, 110.0, 100.0), "pixel_std": (60.0, 50.0, 40.0), **options}
    return Segmentor(
        backbone=backbone,
        decode_head=DECODE_HEAD_REGISTRY.get(head)(in_channels, channels, num_classes),
        auxiliary_head=FCNHead(in_channels, channels, num_classes),
        auxiliary_weight=0.4,
        input_format=input_format,
        **options,
    )


def two_networks() -> tuple[Segmentor, Segmentor]:
    """A student and a teacher of other width, channel order and channel count."""
    student = small_segmentor(width=0.0625, channels=8)
    teacher = small_segmentor(width=0.125, channels=12, input_format="BGR", seed=1)
    return student, teacher


def image_batch(n=2, size=(65, 89), device="cpu") -> list[dict[str, Any]]:
    """A training batch of noise."""
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, *size), generator=g).to(torch.uint8)
    labels = draw_labels(n, size)
    return [{"image": x.to(device), "sem_seg": y.to(device)} for x, y in zip(images, labels, strict=True)]
