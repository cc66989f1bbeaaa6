"""From a trained student to a file that runs without this project, checked before it is written."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from fakd.files import atomic_write
from fakd.modeling.quantized import is_quantized

from .formats import FORMATS, Files, Format, Run
from .metadata import ExportMetadata
from .network import DeployedNetwork, lines_of

# Share of pixels that must have the same class. A network trained for int8 is compared in its own rounding.
_LEAST = {"float32": 0.999, "int8, trained": 0.98, "float16": 0.0, "int8": 0.0}
_TRIED_AT = ((2, 96, 128), (1, 101, 75), (1, 64, 161))  # a graph for any size fails at odd sides, if it does


@dataclass(frozen=True)
class Comparison:
    """An exported network beside the one it was made of, on the same images.

    Attributes:
        difference: largest between two scores; nan or infinite if a score is.
        scores: largest absolute score.
        agreement: share of pixels whose largest score is the same class's.
    """

    difference: float
    scores: float
    agreement: float

    def __str__(self) -> str:
        return (
            f"scores differ from PyTorch's by at most {self.difference:.2g} (of {self.scores:.3g}), "
            f"{100 * self.agreement:.3f} % of pixels have the same class"
        )


def format_named(name: str) -> Format:
    """Raises:
    ValueError: there is no such format.
    """
    if name not in FORMATS:
        raise ValueError(f"The format '{name}' is none of {', '.join(FORMATS)}.")
    return FORMATS[name]


@torch.no_grad()
def keep(
    made: Format, files: Files, reference: DeployedNetwork, metadata: ExportMetadata, path: str | Path
) -> Comparison | None:
    """Gives files their names if they compute what PyTorch does.

    Args:
        made: the format of the files.
        files: by ending.
        reference: the network in float32.
        metadata: of the files.
        path: ends in the format's ending.

    Returns:
        None if this machine cannot run the format.

    Raises:
        ValueError: the path has another ending, or the files compute something else or no numbers.
    """
    stem, found = made.stem(path), None
    if made.runs_here:
        with tempfile.TemporaryDirectory() as folder:
            trial = str(Path(folder, "student"))
            write(files, trial)
            run, _ = made.open(Path(trial + made.ending))
            found = compare(reference, run, shapes(metadata.size))
        if not math.isfinite(found.difference):
            before = not math.isfinite(found.scores)
            half = metadata.precision == "float16" and not before
            raise ValueError(
                f"The {'network' if before else 'exported file'}'s scores are not all finite. Nothing was "
                f"written.{' Numbers of float16 end at 65504: --precision float32 has room.' if half else ''}"
            )
        # In half precision two close scores may swap; the effect is measured on the test images.
        least = _LEAST[metadata.precision if not is_quantized(reference) else "int8, trained"]
        if found.agreement < least:
            fixed = metadata.size or not made.any_size
            raise ValueError(
                f"The exported file would compute something else: {found}; {100 * least:.1f} % must. "
                f"Nothing was written.{'' if fixed else ' With a fixed --size it may be right.'}"
            )
    write(files, stem)
    return found


def write(files: Files, stem: str) -> None:
    """Each file whole or not at all; that of the format's own ending is the last."""
    for ending, content in reversed(list(files.items())):
        target = Path(stem + ending)
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as file:
            file.write(content)


def shapes(size: tuple[int, int] | None) -> tuple[tuple[int, int, int], ...]:
    """(N, H, W) of the images that an export is tried on."""
    return _TRIED_AT if size is None else ((1, *size),) * 3


def compare(network: DeployedNetwork, exported: Run, shapes: Iterable[tuple[int, int, int]]) -> Comparison:
    """Both on smooth random images of the shapes (N, H, W)."""
    differences, scores = [], []
    same = total = 0
    generator = torch.Generator().manual_seed(0)
    channels = len(network.network.pixel_mean)
    for n, height, width in shapes:
        coarse = torch.rand(n, channels, height // 8 + 2, width // 8 + 2, generator=generator)
        image = 255 * F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
        if not network.normalize:
            image = network.network.normalize(image)
        ours = network(image)
        try:
            theirs = exported(image)
        except Exception as error:  # onnxruntime's errors share no base but this
            raise ValueError(
                f"The exported graph fails at {height}x{width}: {lines_of(error)[-1]} "
                "Export it for a fixed --size."
            ) from error
        differences.append((ours - theirs).abs().max())
        scores.append(ours.abs().max())
        same += int((ours.argmax(1) == theirs.argmax(1)).sum())
        total += n * height * width
    # Unlike Python's, this maximum of nan and a number is nan.
    return Comparison(torch.stack(differences).max().item(), torch.stack(scores).max().item(), same / total)
