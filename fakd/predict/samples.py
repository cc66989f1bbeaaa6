"""What trained networks make of images of a test set: predictions, and the strength of their features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from torch import Tensor, nn

from fakd.data import SemSegMapper
from fakd.data.bands import read_shown
from fakd.data.datasets.colours import palette
from fakd.data.labels import label_reader
from fakd.data.selection import evenly_spaced
from fakd.evaluation import as_tested
from fakd.modeling.batch import stack_images


@dataclass(frozen=True)
class Samples:
    """Images of a registered dataset, spread over it.

    Attributes:
        records: their dataset dicts.
        images: (H, W, 3) uint8 RGB each.
        truths: (H, W) class ids or ``void`` each.
        classes: names of the K classes.
        palette: (V, 3) uint8 RGB by id.
        void: the label of pixels that do not count.
    """

    records: list[dict[str, Any]]
    images: list[np.ndarray]
    truths: list[np.ndarray]
    classes: list[str]
    palette: np.ndarray
    void: int


def load_samples(dataset: str, count: int) -> Samples:
    """``count`` images at most, evenly spread: neighbours in a video are one image many times.

    Raises:
        KeyError, OSError, ValueError: the dataset is not registered, or cannot be read.
    """
    metadata = MetadataCatalog.get(dataset)
    records, read_label = evenly_spaced(DatasetCatalog.get(dataset), count), label_reader(metadata)
    return Samples(
        records,
        [read_shown(r["file_name"]) for r in records],
        [read_label(r["sem_seg_file_name"]) for r in records],
        list(metadata.stuff_classes),
        palette(metadata),
        metadata.ignore_label,
    )


@torch.no_grad()
def predictions(
    cfg: CfgNode,
    network: nn.Module,
    records: Sequence[dict[str, Any]],
    step: Callable[[], Any] = lambda: None,
) -> list[np.ndarray]:
    """(H, W) class ids of every image, by the network as TEST says.

    Args:
        cfg: of the network.
        network: in evaluation mode.
        records: dataset dicts.
        step: called after every image.
    """
    model, mapper = as_tested(network, cfg), SemSegMapper(cfg, is_train=False)
    found = []
    for record in records:
        found.append(model([mapper(record)])[0]["sem_seg"].max(dim=0).indices.cpu().numpy())
        step()
    return found


@torch.no_grad()
def activation(cfg: CfgNode, network: Any, record: dict[str, Any]) -> Tensor:
    """(h, w) squared length of the feature in front of a Segmentor's classifier, at every pixel."""
    item = SemSegMapper(cfg, is_train=False)(record)
    output = network.encode(stack_images([item], network.pixel_mean).tensor)
    return output.feature[0].float().square().sum(dim=0).cpu()


def enlarged(values: Tensor, size: tuple[int, int]) -> np.ndarray:
    """(h, w) to (H, W), bilinear."""
    return F.interpolate(values[None, None], size, mode="bilinear", align_corners=False)[0, 0].numpy()
