"""What leaves this project: a student from a batch of images to scores, without detectron2's contract."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torch import Tensor, nn

from fakd.data.datasets.colours import colour_map, palette
from fakd.modeling import Segmentor


@dataclass(frozen=True)
class Card:
    """What a user of an exported file has to know; it travels inside of the file.

    Attributes:
        classes: their names, in the order of the scores.
        colours: (K, 3) RGB, 0 to 255.
        input_format: "RGB" or "BGR", the order of the input's channels.
        normalize: whether the network normalises its input itself; then the input is 0 to 255, else
            ``(image - pixel_mean) / pixel_std``.
        pixel_mean: per channel, in the order of ``input_format``.
        pixel_std: likewise.
        size: (H, W) of the input, or None for any.
        base_size: (long side, short side) of the box that images are resized into before, (0, 0) for none.
        window: (height, width) of the windows that larger images are tested in; (0, 0) for whole images.
        stride: (down, right) from window to window.
        precision: "float32", "float16" or "int8".
    """

    classes: tuple[str, ...]
    colours: tuple[tuple[int, ...], ...]
    input_format: str
    normalize: bool
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    size: tuple[int, int] | None
    base_size: tuple[int, int]
    window: tuple[int, int]
    stride: tuple[int, int]
    precision: str = "float32"

    def as_json(self) -> dict[str, str]:
        """Every attribute as a JSON text."""
        return {name: json.dumps(value) for name, value in asdict(self).items()}


def from_json(text: str) -> Any:
    """A value of :meth:`Card.as_json`, with tuples for lists."""

    def tuples(value: Any) -> Any:
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    return tuples(json.loads(text))


def classes_and_colours(cfg: CfgNode) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """Names and RGB colours of the classes of a config's dataset; numbers where it names no dataset."""
    number = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    for dataset in [*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN][:1]:
        metadata = MetadataCatalog.get(dataset)
        if len(metadata.stuff_classes) != number:
            raise ValueError(
                f"The dataset '{dataset}' has {len(metadata.stuff_classes)} classes, but "
                f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {number}."
            )
        return tuple(metadata.stuff_classes), tuple(map(tuple, palette(metadata)[:number].tolist()))
    return tuple(map(str, range(number))), tuple(colour_map(number))


def make_card(
    cfg: CfgNode, network: Segmentor, size: tuple[int, int] | None, normalize: bool, precision: str
) -> Card:
    """The card of a student; the last three arguments are attributes of :class:`Card`."""
    classes, colours = classes_and_colours(cfg)
    return Card(
        classes=classes,
        colours=colours,
        input_format=network.input_format,
        normalize=normalize,
        pixel_mean=tuple(network.pixel_mean.flatten().tolist()),
        pixel_std=tuple(network.pixel_std.flatten().tolist()),
        size=size,
        base_size=tuple(cfg.INPUT.BASE_SIZE),
        window=tuple(cfg.TEST.WINDOW),
        stride=tuple(cfg.TEST.STRIDE),
        precision=precision,
    )


class DeployedNetwork(nn.Module):
    """From float32 images (N, 3, H, W) to float32 scores (N, K, H, W), what evaluation takes the arg-max of.

    Args:
        network: a trained student; it is copied without its auxiliary head, in evaluation mode.
        normalize: whether the images are 0 to 255, or normalised already.
        half: compute in half precision.
    """

    def __init__(self, network: Segmentor, normalize: bool = True, half: bool = False) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.network.auxiliary_head = None
        self.normalize, self.dtype = normalize, torch.float32
        if half:
            self.dtype = torch.float16
            self.network.backbone.half()
            self.network.decode_head.half()
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """Scores (N, K, H, W) of images (N, 3, H, W)."""
        x = self.network.normalize(image) if self.normalize else image
        logits = self.network.encode_normalized(x.to(self.dtype)).logits.float()
        corners = self.network.decode_head.align_corners
        return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=corners)


class ProductPool(nn.Module):
    """``nn.AdaptiveAvgPool2d`` as two matrix products, which a graph for any image size can hold.

    Args:
        size: side of the pooled map.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, size, size) from (N, C, h, w)."""
        return self._means(x, x.shape[2]) @ x @ self._means(x, x.shape[3]).T

    def _means(self, x: Tensor, length: int) -> Tensor:
        """(size, length): row i averages from floor(i length / size) to ceil((i + 1) length / size)."""
        cell = torch.arange(self.size, device=x.device)[:, None]
        position = torch.arange(length, device=x.device)
        first, end = cell * length // self.size, ((cell + 1) * length + self.size - 1) // self.size
        inside = (position >= first) & (position < end)
        return inside.to(x.dtype) / (end - first).to(x.dtype)


def exportable(network: nn.Module) -> nn.Module:
    """A copy that computes the same, of operators that exported graphs have."""
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d) and isinstance(child.output_size, int):
                if child.output_size > 1:  # one cell is the mean of all
                    setattr(module, name, ProductPool(child.output_size))
    return network
