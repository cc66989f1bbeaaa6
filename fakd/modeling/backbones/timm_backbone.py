"""timm's networks behind detectron2's Backbone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import timm
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, ShapeSpec
from detectron2.utils.logger import log_first_n
from timm.models import FeatureInfo
from torch import Tensor, nn

from ...checkpoint.registry_weights import fetch_registry_weights
from . import mit  # noqa: F401, which gives timm the names
from .mmseg_style import use_mmseg_style
from .pretrained import create_pretrained, load_pretrained

logger = logging.getLogger(__name__)

# Width of the first of the three 3x3 convolutions that replace the 7x7 one, by the name of the variant.
DEEP_STEMS = {"c": 32, "s": 64}
# Arguments by which timm's transformers take images of other sizes than the one they were made for.
_ANY_SIZE = {"dynamic_img_size": True, "strict_img_size": False}
_FINEST = 4  # stride; finer maps are of no use to a decode head


@BACKBONE_REGISTRY.register()
class TimmBackbone(Backbone):
    """A timm network with its classifier removed, dilated to a given output stride.

    The maps are the last four at stride 4 and coarser, ``res2`` to ``res5``, fine to coarse; where there are
    fewer, ``res5`` is still the last.

    Args:
        name: timm model name, e.g. "resnet18"; any that timm builds with ``features_only``, and "mit_b0" to
            "mit_b5".
        output_stride: 8 or 16 dilates the last stages instead of striding them, where timm can; 32 leaves the
            network its own strides.
        dilation_style: "mmseg" or "timm". Both have the same weights; see :func:`use_mmseg_style`.
        stem: of a ResNet: "7x7", or "c" and "s" for three 3x3 convolutions of 32 or 64 channels (the
            third has twice as many).
        width: of a ResNet: factor of all channels, for small experiments.
        pretrained: "none", "timm" for the weights of timm's hub, "registry" for those inside packages of
            Python's registry, or the path of a file.
        options: ``[name, value, ...]``, further arguments of ``timm.create_model``.
        in_channels: of the images. The first convolution's weights of ``pretrained``, which are for three,
            are repeated and scaled as timm does (``adapt_input_conv``), or summed for one.
        any_size: resize images that the network does not take to the nearest size that it does: a multiple of
            a transformer's patch, or the one size of a network that was made for one. The maps then cover
            the image with other strides.
        frozen_stages: how many of the maps, from ``res2`` on, come from weights and statistics that training
            leaves as they are. Their backward pass is saved, which costs most where maps are large.
    """

    @configurable
    def __init__(
        self,
        *,
        name: str,
        output_stride: int = 8,
        dilation_style: str = "mmseg",
        stem: str = "7x7",
        width: float = 1.0,
        pretrained: str = "none",
        options: Sequence[Any] = (),
        any_size: bool = False,
        in_channels: int = 3,
        frozen_stages: int = 0,
    ) -> None:
        super().__init__()
        self.name = name
        if dilation_style not in ("mmseg", "timm"):
            raise ValueError(
                f"MODEL.BACKBONE.DILATION_STYLE is '{dilation_style}'; choose 'mmseg' or 'timm'."
            )
        kwargs = _resnet_kwargs(stem, width)
        if name.startswith("hrnet_"):
            kwargs["feature_location"] = ""  # timm's default widens the branches for its classifier
        if in_channels != 3:
            kwargs["in_chans"] = in_channels
        kwargs.update(zip(options[::2], options[1::2], strict=True))
        if kwargs.get("in_chans", 3) != in_channels:
            raise ValueError(
                f"MODEL.BACKBONE.TIMM_OPTIONS names in_chans {kwargs['in_chans']}, but the images have "
                f"{in_channels} channels: leave it out; INPUT.CHANNELS says how many they are."
            )
        try:
            self.net = _create(name, output_stride, kwargs, pretrained)
        except (TypeError, AttributeError, AssertionError) as error:
            if not options:
                raise
            raise ValueError(
                f"MODEL.BACKBONE.TIMM_OPTIONS is {tuple(options)!r}, with which timm cannot build {name}: "
                f"{error or type(error).__name__}. Name arguments that it has, or leave them out."
            ) from error
        if dilation_style == "mmseg":
            use_mmseg_style(self.net, name)
        info: FeatureInfo = self.net.feature_info  # type: ignore[assignment]
        self._taken = [i for i, stride in enumerate(info.reduction()) if stride >= _FINEST][-4:]
        self._fitting = _fitting_size(self.net, any_size)
        self._channels_last = str(getattr(self.net, "output_fmt", "")).endswith("NHWC")
        self._out_features = [f"res{6 - n}" for n in range(len(self._taken), 0, -1)]
        self._shapes = {
            key: ShapeSpec(channels=info.channels()[i], stride=info.reduction()[i])
            for key, i in zip(self._out_features, self._taken, strict=True)
        }
        if pretrained == "none":
            logger.info(
                "The backbone %s has random weights until a checkpoint is loaded (MODEL.BACKBONE.PRETRAINED "
                "is none).",
                name,
            )
        elif pretrained == "registry":
            load_pretrained(self.net, str(fetch_registry_weights(name)))
        elif pretrained != "timm":
            load_pretrained(self.net, pretrained)
        self._frozen: set[str] = set()  # names, since a layer may be replaced by another of its kind
        if frozen_stages:
            stages = [info.module_name(i) for i in self._taken]
            if frozen_stages >= len(stages):
                raise ValueError(
                    f"MODEL.BACKBONE.FROZEN_STAGES is {frozen_stages}, but {name} gives {len(stages)} maps: "
                    f"choose at most {len(stages) - 1}, or MODEL.BACKBONE.FREEZE to keep all of it."
                )
            self._frozen = _freeze_front(self.net, stages[frozen_stages - 1])

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """The arguments, from a config."""
        backbone = cfg.MODEL.BACKBONE
        return {
            "name": backbone.TIMM_NAME,
            "output_stride": backbone.OUTPUT_STRIDE,
            "dilation_style": backbone.DILATION_STYLE,
            "stem": backbone.STEM,
            "width": backbone.WIDTH,
            "pretrained": backbone.PRETRAINED,
            "options": backbone.TIMM_OPTIONS,
            "any_size": backbone.ANY_SIZE,
            "in_channels": input_shape.channels,
            "frozen_stages": backbone.FROZEN_STAGES,
        }

    def train(self, mode: bool = True) -> TimmBackbone:
        """As for any module, but what is frozen stays in evaluation mode; not what is added to it later."""
        super().train(mode)
        for name, layer in self.net.named_modules():  # some are gone from a folded network
            if name in self._frozen:
                layer.training = False
        return self

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps by name; ``images`` (N, C, H, W), normalised."""
        size = self._fitting(*images.shape[-2:])
        if size != tuple(images.shape[-2:]):
            log_first_n(
                logging.WARNING,
                f"Images of {images.shape[-2]}x{images.shape[-1]} are resized to {size[0]}x{size[1]} for "
                f"{self.name}, which takes no others (MODEL.BACKBONE.ANY_SIZE).",
                key="message",
            )
            # In float32, since CPUs have no half precision for it.
            resized = F.interpolate(images.float(), size=size, mode="bilinear", antialias=True)
            images = resized.to(images.dtype)
        try:
            maps = self.net(images)
        except (AssertionError, RuntimeError) as error:
            if refusal := self._size_refusal(images.shape[-2:], error):
                raise ValueError(refusal) from error
            raise
        maps = [maps[i].permute(0, 3, 1, 2) if self._channels_last else maps[i] for i in self._taken]
        return dict(zip(self._out_features, maps, strict=True))

    def _size_refusal(self, size: Sequence[int], error: Exception) -> str:
        """What to tell if the size of the images is at fault; "" if it is not."""
        known: Mapping[str, Any] = self.net.pretrained_cfg  # type: ignore[assignment]
        height, width = known["input_size"][1:]
        fixed = known.get("fixed_input_size", False)
        # timm asserts sizes; where it does not, a network of one size fails at some shape deep within.
        if not (isinstance(error, AssertionError) or (fixed and tuple(size) != (height, width))):
            return ""
        said = f" ({error})" if isinstance(error, AssertionError) and str(error) else ""
        return (
            f"MODEL.BACKBONE.TIMM_NAME: {self.name} does not take images of {size[0]}x{size[1]}{said}. It "
            f"was made for {height}x{width}: set INPUT.CROP.SIZE and TEST.WINDOW to ({height}, {width}), "
            "with a TEST.STRIDE; or MODEL.BACKBONE.TIMM_OPTIONS to ('img_size', (height, width)) if it has "
            "that argument; or MODEL.BACKBONE.ANY_SIZE to True to resize images to what it takes; or choose "
            "a network of any size (docs/models.md)."
        )

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)


def _fitting_size(net: nn.Module, any_size: bool) -> Callable[[int, int], tuple[int, int]]:
    """From an image's height and width to those that a network is given."""
    if not any_size:
        return lambda height, width: (height, width)
    embed: Any = getattr(getattr(net, "model", net), "patch_embed", None)
    known: Mapping[str, Any] = net.pretrained_cfg  # type: ignore[assignment]
    if getattr(embed, "img_size", None) is None or getattr(embed, "dynamic_img_pad", False):
        if embed is None and known.get("fixed_input_size", False):
            return lambda height, width: tuple(known["input_size"][1:])
        return lambda height, width: (height, width)
    if embed.strict_img_size:
        return lambda height, width: tuple(embed.img_size)
    down, right = embed.patch_size
    return lambda height, width: (
        max(1, round(height / down)) * down,
        max(1, round(width / right)) * right,
    )


def _create(name: str, output_stride: int, kwargs: dict[str, Any], pretrained: str) -> nn.Module:
    """The timm network, dilated if it can be.

    Raises:
        ValueError: timm does not know the name, or the network gives no maps.
    """
    kwargs = {**kwargs, "features_only": True}
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_')[0]}*")[:5]
        raise ValueError(
            f"MODEL.BACKBONE.TIMM_NAME: timm has no '{name}'. Near: {', '.join(near) or 'none'}."
        )

    def create(**more: Any) -> nn.Module:
        if pretrained == "timm":
            return create_pretrained(name, {**kwargs, **more})
        return timm.create_model(name, **kwargs, **more)

    if output_stride == 32:
        return _with_any_size(name, kwargs, create)
    reason = ""
    try:
        net = create(output_stride=output_stride)
    except (AssertionError, NotImplementedError, TypeError) as error:
        reason = f" ({error or type(error).__name__})"
        net = _with_any_size(name, kwargs, create)  # an error with another cause is raised again here
    strides = net.feature_info.reduction()  # type: ignore
    if strides[-1] != output_stride:
        logger.warning(
            "timm cannot dilate %s to MODEL.BACKBONE.OUTPUT_STRIDE %d%s: IT KEEPS ITS OWN STRIDES, %s. "
            "OUTPUT_STRIDE 32 asks for that; docs/models.md lists the networks that can be dilated.",
            name,
            output_stride,
            reason,
            strides,
        )
    return net


def _with_any_size(name: str, kwargs: Mapping[str, Any], create: Callable[..., nn.Module]) -> nn.Module:
    """The network; one that was made for images of one size is told to take any, where it can be told so."""
    known = timm.get_pretrained_cfg(name)
    if known and known.fixed_input_size and not {"img_size", *_ANY_SIZE} & set(kwargs):
        for option, value in _ANY_SIZE.items():
            try:
                return create(**{option: value})
            except TypeError as error:
                if option not in str(error):
                    raise
    return create()


def _freeze_front(net: nn.Module, stage: str) -> set[str]:
    """Freezes a network's weights up to the end of a stage; the names of what must stay in evaluation mode.

    Args:
        net: a feature network of timm, which holds its layers in the order of computing.
        stage: the stage's name, as timm's ``feature_info`` tells it.

    Raises:
        ValueError: no layer has that name.
    """
    # Feature networks write some dots as underscores; those of transformers hold the network as `model`.
    names = [
        f"{name.removeprefix('model')}.".replace("_", ".").lstrip(".") for name, _ in net.named_modules()
    ]
    stage = stage.replace("_", ".") + "."
    end = max((i for i, name in enumerate(names) if name.startswith(stage)), default=None)
    if end is None:
        raise ValueError(
            f"MODEL.BACKBONE.FROZEN_STAGES: timm does not say where the stage '{stage[:-1]}' of "
            f"{type(net).__name__} lies. Set it to 0, or MODEL.BACKBONE.FREEZE to keep the whole backbone."
        )
    frozen = set()
    for i, (own_name, part) in enumerate(net.named_modules()):
        if i <= end and not any(later.startswith(names[i]) for later in names[end + 1 :]):
            part.requires_grad_(False)
            frozen.add(own_name)
        elif stage.startswith(names[i]):
            for parameter in part.parameters(recurse=False):  # a transformer's tokens and positions
                parameter.requires_grad_(False)
    return frozen


def _resnet_kwargs(stem: str, width: float) -> dict[str, Any]:
    """timm's arguments for a ResNet's stem and width; none for the defaults, so any network accepts them."""
    if stem != "7x7" and stem not in DEEP_STEMS:
        raise ValueError(f"MODEL.BACKBONE.STEM is '{stem}'; choose from 7x7, {', '.join(DEEP_STEMS)}.")
    kwargs: dict[str, Any] = {}
    if stem in DEEP_STEMS:
        kwargs.update(stem_type="deep", stem_width=max(1, round(DEEP_STEMS[stem] * width)))
    if width != 1.0:
        kwargs["channels"] = tuple(max(1, round(c * width)) for c in (64, 128, 256, 512))
    return kwargs
