"""A picture made of many: a grid of tiles under titles, with a legend above and a note below."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

_INCHES = 2.0  # width of a tile


@dataclass(frozen=True)
class Tile:
    """A place in the grid.

    Attributes:
        picture: (H, W, 3) uint8 RGB; None leaves the place empty.
        caption: below it.
    """

    picture: np.ndarray | None = None
    caption: str = ""


def draw_tiles(
    rows: Sequence[Sequence[Tile]],
    titles: Sequence[str],
    note: str,
    legend: Mapping[str, Sequence[int]] | None = None,
) -> bytes:
    """The content of a PNG.

    Args:
        rows: of the grid, equally long; the first tile of the first row gives the shape of all.
        titles: one per column.
        note: below the grid.
        legend: (3,) RGB colours, 0 to 255, by what they mean.
    """
    first = rows[0][0].picture
    assert first is not None  # what else would give the shape
    height, width = first.shape[:2]
    legend = legend or {}
    per_line = max(2, int(_INCHES * len(titles) / 1.5))
    lines = -(-len(legend) // per_line)
    size = (_INCHES * len(titles), (_INCHES * height / width + 0.22) * len(rows) + 0.6 + 0.18 * lines)
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure = Figure(figsize=size, layout=layout)
    for axes_row, tiles in zip(figure.subplots(len(rows), len(titles), squeeze=False), rows, strict=True):
        for axes, title, tile in zip(axes_row, titles, tiles, strict=True):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.set_xlabel(tile.caption, fontsize=8, labelpad=2)
            if tile.picture is not None:
                axes.imshow(tile.picture, interpolation="nearest")
            if tiles is rows[0]:
                axes.set_title(_broken(title), fontsize=10, fontweight="bold")
    if legend:
        patches = [
            Patch(facecolor=tuple(np.asarray(colour) / 255), edgecolor="0.5", linewidth=0.5, label=name)
            for name, colour in legend.items()
        ]
        figure.legend(handles=patches, loc="outside upper center", ncols=per_line, fontsize=8, frameon=False)
    figure.supxlabel(note, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, facecolor="white")
    return buffer.getvalue()


def _broken(title: str) -> str:
    """In lines of a tile's width."""
    return "\n".join(title[i : i + 24] for i in range(0, len(title), 24))
