"""Which layers of a student lose most in int8."""

from __future__ import annotations

import io
from collections.abc import Callable

import pandas as pd
import torch
from detectron2.config import CfgNode
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from fakd.modeling.quantized import begin, convolutions

from .quantize import images_as_tested, quantize
from .source import load_student

IN_FLOAT = (0, 1, 2, 4, 8, 16)  # numbers of layers whose leaving in float is tried
_SHOWN = 25


@torch.inference_mode()
def rank_layers(
    cfg: CfgNode, weights: str, images: int = 16, calibration: int = 32
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What each layer alone costs in int8, and what is left with the worst in float.

    Cost is the share of pixels, in percent, whose class is not that of the float network. No label is read.

    Args:
        cfg: of the student, whose first test set is looked at.
        weights: its checkpoint. Of a network that was trained for int8, its own ranges are taken.
        images: of the test set, spread over it.
        calibration: training images that give a float network the ranges of its maps.

    Returns:
        "layer", "parameters" and "changed (%)", the worst first; and "in float", a number of the worst
        layers, with "changed (%)" while all others compute as in int8.

    Raises:
        ValueError: there are no images, or the network cannot be computed in int8.
    """
    if not cfg.DATASETS.TEST or images < 1:
        raise ValueError("Layers are ranked on test images: DATASETS.TEST must name some.")
    network = load_student(cfg, weights)
    if not cfg.DEPLOY.QAT.ENABLED:
        quantize(cfg, network, calibration)
    shown = list(images_as_tested(cfg, network, cfg.DATASETS.TEST[:1], images))

    def classes(wanted: Callable[[str], bool]) -> Tensor:
        begin(network, wanted)
        return torch.cat([network.encode(image).logits.argmax(1).flatten() for image in shown])

    exact = classes(lambda name: False)

    def changed(wanted: Callable[[str], bool]) -> float:
        return 100 * (classes(wanted) != exact).double().mean().item()

    found = convolutions(network)
    rows = [
        (name, conv.weight.numel(), changed(name.__eq__))
        for name, conv in tqdm(found.items(), desc="layers", unit="layer")
    ]
    layers = pd.DataFrame(rows, columns=["layer", "parameters", "changed (%)"])
    layers = layers.sort_values("changed (%)", ascending=False, ignore_index=True)
    order = list(layers["layer"])
    mixed = [(n, changed(set(order[n:]).__contains__)) for n in IN_FLOAT if n < len(order)]
    return layers, pd.DataFrame(mixed, columns=["in float", "changed (%)"])


def draw(layers: pd.DataFrame, mixed: pd.DataFrame) -> bytes:
    """Both tables of :func:`rank_layers` as a picture, png."""
    worst = layers.head(_SHOWN).iloc[::-1]
    figure = Figure(figsize=(10, 1.2 + 0.22 * len(worst)), layout="constrained")
    bars, curve = figure.subplots(1, 2, width_ratios=(3, 2))
    bars.barh(worst["layer"], worst["changed (%)"], color="tab:blue")
    bars.tick_params(axis="y", labelsize=7)
    bars.set(title="one layer alone in int8", xlabel="pixels of another class (%)")
    curve.plot(mixed["in float"], mixed["changed (%)"], "o-", color="tab:blue")
    curve.set(
        title="all but the worst in int8", xlabel="layers in float", ylabel="pixels of another class (%)"
    )
    curve.set_ylim(bottom=0)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()
