"""The exported network: from a batch of images to scores, without detectron2's contract."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fakd.modeling import Segmentor
from fakd.modeling.quantized import Int8Conv, QuantizedConv

# Sides at which a graph for any size is traced: such graphs fail at odd sides.
_MADE_AT = (2, 137, 197)


class DeployedNetwork(nn.Module):
    """From float32 images (N, C, H, W) to float32 scores (N, K, H, W), what evaluation takes the arg-max of.

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
        """Scores (N, K, H, W) of images (N, C, H, W)."""
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
        inside = (position >= first).to(x.dtype) * (position < end).to(x.dtype)  # coremltools knows no "and"
        return inside / (end - first).to(x.dtype)


def exportable(network: nn.Module, signed: bool = False) -> nn.Module:
    """A copy that computes the same, of operators that exported graphs have.

    Args:
        network: in evaluation mode.
        signed: see :class:`fakd.modeling.quantized.Int8Conv`.
    """
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d) and isinstance(child.output_size, int):
                if child.output_size > 1:  # one cell is the mean of all
                    setattr(module, name, ProductPool(child.output_size))
            elif isinstance(child, QuantizedConv) and child.quantized:
                setattr(module, name, Int8Conv(child, signed))
    return network


def lines_of(error: BaseException) -> list[str]:
    """An error's message; what it is where it has none, as a bare assertion."""
    return str(error).strip().splitlines() or [repr(error)]


def traced(network: nn.Module, example: Tensor) -> torch.jit.ScriptModule:
    """The network as PyTorch's tracer sees it compute an example.

    Raises:
        ValueError: it cannot follow the network.
    """
    try:
        return torch.jit.trace(network, example, check_trace=False)
    except Exception as error:  # it raises what the network does, and kinds of its own
        raise ValueError(
            f"torch.jit.trace cannot follow this network ({lines_of(error)[0]}); --format torch-export does "
            "not need to."
        ) from error


def program_of(
    network: nn.Module, size: tuple[int, int] | None, batch: int = 1, channels: int = 3
) -> torch.export.ExportedProgram:
    """The network as PyTorch's own graph, for ``batch`` images of (H, W), or any number of any size.

    Raises:
        ValueError: PyTorch cannot follow the network, or not for any size.
    """
    shape, free = (batch, *(size or ())), None
    if size is None:
        shape = _MADE_AT
        # Not named: a name requires a proof for every size, which the rounding at each stride prevents.
        free = (dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC),)
    try:
        example = torch.rand(shape[0], channels, *shape[1:])
        program = torch.export.export(exportable(network), (example,), dynamic_shapes=free, strict=False)
    except Exception as error:  # PyTorch raises many kinds of errors for what it cannot trace
        first = lines_of(error)[0]
        if size is None:
            raise ValueError(
                f"This network cannot be exported for any size ({first}). Fix it with --size H W."
            ) from error
        raise ValueError(
            f"torch.export cannot follow this network ({first}); --format torchscript does not need to."
        ) from error
    for node in program.graph.nodes:  # a file would tell the paths of this machine
        node.meta.pop("stack_trace", None)
    return program
