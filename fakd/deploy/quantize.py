"""int8 for a network that was trained in float: the ranges of its maps are observed on training images."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from torch import Tensor
from tqdm import tqdm

from fakd.data import SemSegMapper
from fakd.data.selection import evenly_spaced
from fakd.modeling import Segmentor
from fakd.modeling.batch import stack_images
from fakd.modeling.quantized import ActivationRange, begin, prepare

from .exported import at_size


@torch.no_grad()
def quantize(cfg: CfgNode, network: Segmentor, images: int, size: tuple[int, int] | None = None) -> None:
    """Lets a network in evaluation mode compute as in int8 from now on (static quantisation).

    Args:
        cfg: of the network, for its training images, DEPLOY.QAT.FLOAT_LAYERS and WEIGHT_BITS.
        network: that was trained in float.
        images: how many; a range is the mean of their smallest and largest values.
        size: (H, W) that they are resized to; None leaves them as they are tested.

    Raises:
        ValueError: there are no training images, or a layer cannot be computed in int8.
    """
    if not cfg.DATASETS.TRAIN or images < 1:
        raise ValueError("int8 is calibrated on training images: DATASETS.TRAIN must name some.")
    prepare(
        network, size or tuple(cfg.INPUT.CROP.SIZE), cfg.DEPLOY.QAT.FLOAT_LAYERS, cfg.DEPLOY.QAT.WEIGHT_BITS
    )
    begin(network)
    ranges = [module for module in network.modules() if isinstance(module, ActivationRange)]
    for each in ranges:
        each.train()
    shown = images_as_tested(cfg, network, cfg.DATASETS.TRAIN, images, size)
    for count, image in enumerate(tqdm(shown, desc="calibration", unit="image", total=images), 1):
        for each in ranges:
            each.renewal = 1 / count
        network.encode(image)
    network.eval()


def images_as_tested(
    cfg: CfgNode,
    network: Segmentor,
    datasets: tuple[str, ...],
    count: int,
    size: tuple[int, int] | None = None,
) -> Iterator[Tensor]:
    """(1, C, H, W) of 0 to 255, at most ``count``, spread over the datasets, as they are in a test.

    Raises:
        ValueError: an image cannot be read; the message names it.
    """
    mapper = SemSegMapper(cfg, is_train=False)
    for record in evenly_spaced(get_detection_dataset_dicts(datasets, filter_empty=False), count):
        item = mapper(record)
        yield stack_images([at_size(item, size) if size else item], network.pixel_mean).tensor
