"""Convolutions that compute in training as they will in int8 (Jacob et al., CVPR 2018)."""

from __future__ import annotations

import fnmatch
import functools
import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.layers import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..functional.precision import autocast
from .segmentor import Segmentor

LEVELS = 255  # of an activation, an unsigned byte
# The largest level of a weight by DEPLOY.QAT.WEIGHT_BITS. x86 processors without VNNI add two products of
# bytes in 16 bits, where 255 * 127 twice is too much.
LARGEST = {8: 127, 7: 63}
_Norm = nn.BatchNorm2d | nn.SyncBatchNorm  # several GPUs share theirs; in evaluation both compute the same
_OTHERS = (nn.Linear, nn.Conv1d, nn.Conv3d, nn.ConvTranspose2d, nn.MultiheadAttention)


class ActivationRange(nn.Module):
    """Rounds a map to 256 levels between its smallest and largest value, moving averages over the batches.

    In training it also observes; gradients pass where a value is inside of the range. Until :meth:`begin`
    and a first batch the scale is 0.

    Attributes:
        renewal: share of the averages that a batch replaces.
    """

    renewal = 0.01

    low: Tensor
    high: Tensor
    scale: Tensor
    zero_point: Tensor
    _on: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("low", "high", "scale"):
            self.register_buffer(name, torch.zeros(1))
        self.register_buffer("zero_point", torch.zeros(1, dtype=torch.int32))
        self.register_buffer("_on", torch.ones(1, dtype=torch.long), False)

    @property
    def known(self) -> bool:
        """Whether a batch was observed."""
        return self.scale.item() > 0

    def begin(self) -> None:
        """Lets the next batch in training set the range, unless one has."""
        if not self.known:
            self.low.fill_(torch.inf)
            self.high.fill_(-torch.inf)

    def forward(self, x: Tensor) -> Tensor:
        """A map of any shape, rounded."""
        if not self.training:
            return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, 0, LEVELS)
        moving = (self.low, self.high, self.scale, self.zero_point, self.renewal)
        with autocast(x.device, None):  # a step is smaller than what bfloat16 tells apart
            return torch.fused_moving_avg_obs_fake_quant(
                x.float(), self._on, self._on, *moving, 0, LEVELS, -1
            )


class QuantizedConv(nn.Conv2d):
    """A convolution with the batch norm behind it, which once :attr:`quantized` rounds what it reads and has.

    Parameters keep their names; the norm's stay its own and are folded into the weights at each call, with
    the statistics that they had. Weights are rounded per channel, symmetrically.

    Attributes:
        quantized: else it computes as it did.
        largest: level of a weight.
        norm: behind it, or None; in a tuple, so that it is no child of this module.
        input_range: None where what is read is rounded already.
        output_range: None where the next convolution rounds it, before which only a ReLU stands.
        reads: the range of what is read, its own or that of where it comes from; in a tuple, as the norm.
    """

    quantized: bool
    largest: int
    norm: tuple[_Norm | None]
    input_range: ActivationRange | None
    output_range: ActivationRange | None
    reads: tuple[ActivationRange]

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Weights (out, in, h, w) and bias (out) of both."""
        norm = self.norm[0]
        if norm is None:
            return self.weight, self.bias
        assert norm.running_mean is not None and norm.running_var is not None
        factor = (norm.running_var + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight)
        shift = (0 if self.bias is None else self.bias) - norm.running_mean
        return self.weight * factor.view(-1, 1, 1, 1), shift * factor + (
            0 if norm.bias is None else norm.bias
        )

    def steps(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(out) between the levels of the folded weights."""
        steps = scales_of(weight, self.largest)
        if bias is None:
            return steps
        # Weights near 0 would ask for steps of which no 32 bits count the bias. Half is left to the products.
        return torch.maximum(steps, bias.detach().abs() / (2**30 * self.reads[0].scale))

    def forward(self, x: Tensor) -> Tensor:
        if not self.quantized:
            return super().forward(x)
        if self.input_range is not None:
            x = self.input_range(x)
        weight, bias = self.folded()
        steps = self.steps(weight, bias)
        zeros = torch.zeros(len(steps), dtype=torch.int32, device=steps.device)
        weight = torch.fake_quantize_per_channel_affine(weight, steps, zeros, 0, -self.largest, self.largest)
        if bias is not None:  # a sum of products of steps, as what it is added to
            steps = steps * self.reads[0].scale
            bias = bias + ((bias / steps).round() * steps - bias).detach()
        return self.convolve(x, weight, bias)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution with weights of one's own, and the rounding of its output."""
        if isinstance(self, Conv2dSame):
            x = pad_same(x, list(self.kernel_size), list(self.stride), list(self.dilation))
        y = self._conv_forward(x, weight, bias)
        return y if self.output_range is None else self.output_range(y)


def scales_of(weight: Tensor, largest: int) -> Tensor:
    """(out) the steps between the levels of a convolution's weights (out, in, h, w), per channel."""
    return (weight.detach().abs().amax((1, 2, 3)) / largest).clamp_min(torch.finfo(torch.float32).eps)


@functools.cache
def _quantized(kind: type[nn.Conv2d]) -> type[QuantizedConv]:
    return type(kind.__name__, (QuantizedConv, kind), {})


@functools.cache
def _freezable(kind: type[_Norm]) -> type[_Norm]:
    """A batch norm's class (timm has others than torch) that can be frozen, and folded into a convolution."""

    def forward(self: Any, x: Tensor) -> Tensor:
        if not (self.frozen and self.folded):
            return kind.forward(self, x)
        for name in ("drop", "act"):  # timm's batch norm holds what is behind it
            x = getattr(self, name, nn.Identity())(x)
        return x

    def train(self: Any, mode: bool = True) -> Any:
        return kind.train(self, mode and not self.frozen)

    return type(
        kind.__name__, (kind,), {"forward": forward, "train": train, "frozen": False, "folded": False}
    )


@dataclass
class _Use:
    """What happens to a convolution in a forward pass.

    Attributes:
        times: it is called.
        source: of what convolution, behind its norm, it reads the output as it is.
        norm: behind it.
        readers: names of the functions that read its output behind its norm.
        read_before: whether anything but the norm reads it before.
    """

    times: int = 0
    source: str = ""
    norm: _Norm | None = None
    readers: set[str] = field(default_factory=set)
    read_before: bool = False


_RELU = {"relu", "relu_", "relu6", "hardtanh", "hardtanh_"}
_PASSES = {"contiguous", "dropout", "dropout2d", "pad", "conv2d"}


class _Watch(TorchFunctionMode):
    """Follows the outputs of convolutions through a forward pass."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        modules = dict(network.named_modules())
        self.uses = {name: _Use() for name, m in modules.items() if isinstance(m, nn.Conv2d)}
        self._convs = {id(modules[name].weight): name for name in self.uses}
        self._norms = {id(m.running_mean): m for m in modules.values() if isinstance(m, _Norm)}
        self._outputs: dict[int, tuple[str, str]] = {}  # by tensor: whose, and "before" or "behind" its norm
        self._kept: list[Tensor] = []  # so that no other tensor takes the id of one

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        read = [self._outputs.get(id(x)) for x in _tensors(args)]
        result = func(*args, **(kwargs or {}))
        if not (given := list(_tensors([result]))):
            return result  # a shape, a device: nothing is computed
        self._kept += given
        name = func.__name__
        if name == "conv2d" and (conv := self._convs.get(id(args[1]))):
            self._outputs[id(result)] = conv, "before"
            self.uses[conv].times += 1
            self.uses[conv].source = read[0][0] if read[0] else ""
        norm = self._norms.get(id(args[1])) if name == "batch_norm" else None
        for output in filter(None, read):
            conv, where = output
            use = self.uses[conv]
            if norm is not None and where == "before" and use.norm is None:
                use.norm = norm
                self._outputs[id(result)] = conv, "behind"
                continue
            use.readers.add("relu" if name in _RELU else name)
            use.read_before |= where == "before" and use.norm is not None
            if name in _PASSES - {"conv2d"}:
                use.readers.discard(name)
                self._outputs[id(result)] = output
            elif name in _RELU:
                self._outputs.pop(id(result), None)
        return result


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


@torch.no_grad()
def prepare(
    network: Segmentor, size: tuple[int, int], float_layers: Sequence[str] = (), weight_bits: int = 7
) -> None:
    """Readies every convolution of the backbone and the decode head for :func:`begin`; nothing changes yet.

    Args:
        network: one forward pass of it shows which norm is behind which convolution.
        size: (H, W) of an image that it takes.
        float_layers: names of layers that stay as they are, with * for any part.
        weight_bits: 7 or 8; see :data:`LARGEST`.

    Raises:
        ValueError: a name is of no layer, or a layer cannot be computed in int8; the message names it.
    """
    training = network.training
    network.eval()
    parts = nn.ModuleDict({"backbone": network.backbone, "decode_head": network.decode_head})
    kept = _matching(parts, float_layers)
    with _Watch(parts) as watch:
        network.encode(torch.full((1, len(network.pixel_mean), *size), 128.0, device=network.device))
    uses = {name: use for name, use in watch.uses.items() if use.times and name not in kept}
    _refuse(parts, uses, kept)
    for module in parts.modules():
        if isinstance(module, _Norm):
            module.__class__ = _freezable(type(module))  # type: ignore[arg-type]
    rounded = {name for name, use in uses.items() if use.readers - {"relu", "conv2d"}}
    for name, use in uses.items():
        conv = parts.get_submodule(name)
        conv.__class__ = _quantized(type(conv))  # type: ignore[arg-type]
        assert isinstance(conv, QuantizedConv)
        conv.quantized, conv.norm, conv.largest = False, (use.norm,), LARGEST[weight_bits]
        conv.input_range = None if use.source in rounded else ActivationRange()
        conv.output_range = ActivationRange() if name in rounded else None
    for name, use in uses.items():
        conv = parts.get_submodule(name)
        assert isinstance(conv, QuantizedConv)
        rounds = conv.input_range or parts.get_submodule(use.source).output_range
        assert isinstance(rounds, ActivationRange)
        conv.reads = (rounds,)
    network.to(network.device).train(training)


def _matching(parts: nn.Module, patterns: Sequence[str]) -> set[str]:
    """Names of the layers that patterns mean, and of all within them."""
    names = [name for name, _ in parts.named_modules() if name]
    found: set[str] = set()
    for pattern in patterns:
        hit = [n for n in names if fnmatch.fnmatchcase(n, pattern) or fnmatch.fnmatchcase(n, f"{pattern}.*")]
        if not hit:
            raise ValueError(f"DEPLOY.QAT.FLOAT_LAYERS: the network has no layer '{pattern}'.")
        found.update(hit)
    return found


def _refuse(parts: nn.Module, uses: dict[str, _Use], kept: set[str]) -> None:
    for name, module in parts.named_modules():
        reason = ""
        if isinstance(module, _OTHERS):
            reason = f"a {type(module).__name__}; convolutions alone are computed in int8"
        # Used or not: weights that are derived at each call, as in timm's StdConv2d, are not seen in uses.
        elif isinstance(module, nn.Conv2d) and not _is_plain(module):
            reason = f"a {type(module).__name__}, which is computed otherwise than a convolution"
        elif name in uses and (uses[name].times > 1 or uses[name].read_before):
            reason = "used twice, so that it has no one batch norm"
        if reason and name not in kept:
            raise ValueError(
                f"DEPLOY.QAT: the layer '{name}' is {reason}. DEPLOY.QAT.FLOAT_LAYERS ['{name}'] leaves it "
                "in float; * stands for any part of a name."
            )
    if not uses:
        raise ValueError("DEPLOY.QAT: the network has no convolution that would be computed in int8.")


def _is_plain(conv: nn.Conv2d) -> bool:
    return type(conv) in (nn.Conv2d, Conv2dSame) and isinstance(conv.weight, nn.Parameter)


def convolutions(network: nn.Module) -> dict[str, QuantizedConv]:
    """The layers that :func:`prepare` readied, by name."""
    return {name: m for name, m in network.named_modules() if isinstance(m, QuantizedConv)}


def begin(network: nn.Module, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """From now on layers compute as in int8, and all batch norms of :func:`prepare` keep their statistics.

    Args:
        network: after :func:`prepare`.
        wanted: which layers, by name; all others compute as they did.
    """
    module: Any  # mypy knows no frozen and folded
    for module in network.modules():
        if hasattr(module, "frozen") and isinstance(module, _Norm):
            module.eval()
            module.frozen, module.folded = True, False  # type: ignore[assignment]
        elif isinstance(module, ActivationRange):
            module.begin()
    for name, conv in convolutions(network).items():
        conv.quantized = wanted(name)
        module = conv.norm[0]
        if conv.quantized and module is not None:
            module.folded = True


def is_quantized(network: nn.Module) -> bool:
    """Whether any layer computes as in int8."""
    return any(conv.quantized for conv in convolutions(network).values())


def check_ranges(network: nn.Module, weights: str) -> None:
    """Checks that the range of every map of an int8 network is known.

    Raises:
        ValueError: weights were loaded that have not seen a batch in int8.
    """
    for name, module in network.named_modules():
        if isinstance(module, ActivationRange) and not module.known:
            raise ValueError(
                f"'{weights}' was saved before the network computed in int8 (DEPLOY.QAT.SHARE): the range of "
                f"'{name}' is not known."
            )


class Int8Conv(nn.Module):
    """What a :class:`QuantizedConv` computes, of operators that exporters write as integers.

    Args:
        conv: quantized, its ranges known; it is taken over.
        signed: for LiteRT's converter, which reads maps of signed bytes, weights that the graph rounds, and
            no rounding of biases, which it does itself. Else weights and biases are stored as integers.
    """

    steps: Tensor
    bias_steps: Tensor
    scales: Tensor
    bias_scales: Tensor
    zeros: Tensor

    def __init__(self, conv: QuantizedConv, signed: bool = False) -> None:
        super().__init__()
        importlib.import_module("torch.ao.quantization.fx._decomposed")  # registers the operators
        weight, bias = (None if x is None else x.detach() for x in conv.folded())
        assert weight is not None
        scales = conv.steps(weight, bias)
        bias_scales = scales * conv.reads[0].scale
        bias = torch.zeros_like(scales) if bias is None else bias
        steps = (weight / scales.view(-1, 1, 1, 1)).round()
        bias_steps = (bias / bias_scales).round()
        values = {
            "steps": steps * scales.view(-1, 1, 1, 1) if signed else steps.to(torch.int8),
            "scales": scales,
            "zeros": torch.zeros_like(scales, dtype=torch.int64),
            "bias_steps": bias_steps * bias_scales if signed else bias_steps.to(torch.int32),
            "bias_scales": bias_scales,
        }
        for name, value in values.items():
            self.register_buffer(name, value)
        self.signed = signed
        known, given = conv.input_range, conv.output_range
        self.input_rounding = nn.Identity() if known is None else _Int8Rounding(known, signed)
        if given is not None:
            conv.output_range = _Int8Rounding(given, signed)  # type: ignore[assignment]
        conv.weight, conv.bias = None, None  # type: ignore[assignment]
        self.conv = conv

    @property
    def weight(self) -> Tensor:
        """(out, in, h, w), rounded."""
        if not self.signed:
            return _dequantized(self.steps, self.scales, 127)
        how = self.scales, self.zeros, 0, -127, 127, torch.int8
        operators = torch.ops.quantized_decomposed
        return operators.dequantize_per_channel(operators.quantize_per_channel(self.steps, *how), *how)

    @property
    def bias(self) -> Tensor:
        """(out), rounded."""
        return self.bias_steps if self.signed else _dequantized(self.bias_steps, self.bias_scales, 2**31 - 1)

    def forward(self, x: Tensor) -> Tensor:
        """As a :class:`QuantizedConv` once it is quantized."""
        return self.conv.convolve(self.input_rounding(x), self.weight, self.bias)


def _dequantized(steps: Tensor, scales: Tensor, most: int) -> Tensor:
    return torch.ops.quantized_decomposed.dequantize_per_channel(
        steps, scales, None, 0, -most, most, steps.dtype
    )


class _Int8Rounding(nn.Module):
    def __init__(self, known: ActivationRange, signed: bool) -> None:
        super().__init__()
        low, kind = (-128, torch.int8) if signed else (0, torch.uint8)
        self.how = known.scale.item(), int(known.zero_point.item()) + low, low, low + LEVELS, kind

    def forward(self, x: Tensor) -> Tensor:
        operators = torch.ops.quantized_decomposed
        return operators.dequantize_per_tensor(operators.quantize_per_tensor(x, *self.how), *self.how)
