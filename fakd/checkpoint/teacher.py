"""Loads weights strictly: every key and shape must match."""

from pathlib import Path
from typing import Any

from detectron2.utils.file_io import PathManager
from torch import Tensor, nn

from .checkpointer import RANGE, load_tensors, not_finite

_SHOWN = 5


def load_teacher(
    model: nn.Module, path: str, config_file: str = "", allow_pickle: bool = False, as_float: bool = False
) -> None:
    """Loads weights whose keys must be exactly those of the model.

    Args:
        model: a network, not wrapped.
        path: file or URL with a ``state_dict``, bare or under "model".
        config_file: the model's config, named in errors.
        allow_pickle: see :func:`fakd.checkpoint.load_tensors`.
        as_float: leave out the ranges of int8 that a network trained with DEPLOY.QAT has.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is refused or damaged, or a weight is missing, unknown, of another shape or not
            finite.
    """
    local = PathManager.get_local_path(path)
    if not Path(local).is_file():
        raise FileNotFoundError(
            f"There are no weights at '{path}'. KD.TEACHER.WEIGHTS (or MODEL.WEIGHTS) must name a "
            "checkpoint, for example the model_final.pth of the network's own training."
        )
    content = load_tensors(local, allow_pickle)
    weights = content.get("model", content)
    if as_float:
        weights = {key: value for key, value in weights.items() if not RANGE.search(key)}
    own = model.state_dict()
    # Converted checkpoints often lack this counter, which nothing reads once momentum is set.
    missing = [k for k in own if k not in weights and not k.endswith("num_batches_tracked")]
    unknown = [k for k in weights if k not in own]
    shapes = [
        f"{k}: {_shape(weights[k])} in the file, {tuple(own[k].shape)} in the model"
        for k in own
        if k in weights and _shape(weights[k]) != tuple(own[k].shape)
    ]
    problems = {"missing in the file": missing, "unknown to the model": unknown, "of another shape": shapes}
    if any(problems.values()):
        listed = "; ".join(f"{len(keys)} {what} ({_few(keys)})" for what, keys in problems.items() if keys)
        fits = f"the config '{config_file}'" if config_file else "the config"
        raise ValueError(
            f"The weights '{path}' do not fit {fits}: {listed}. Use the config they were trained with."
        )
    if bad := not_finite(weights):
        raise ValueError(
            f"The weights '{path}' hold NaN or infinity ({_few(bad)}), so the network predicts nothing. Use "
            "an earlier checkpoint."
        )
    model.load_state_dict(weights, strict=False)


def _shape(weight: Any) -> tuple[int, ...] | str:
    return tuple(weight.shape) if isinstance(weight, Tensor) else f"a {type(weight).__name__}"


def _few(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")
