"""int8 for an exported network: onnxruntime's static quantisation, calibrated on training images."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from torch import Tensor
from tqdm import tqdm

from fakd.data import SemSegMapper
from fakd.data.records import evenly_spaced

from .exported import ExportedNetwork
from .metadata import ExportMetadata

# Nearly all of the work. What is between convolutions stays float: the sums of attention and of pooled maps
# lose more than they save.
_QUANTIZED = ["Conv"]


class CalibrationImages:
    """Training images as the network is shown them in a test, as onnxruntime reads them.

    Args:
        cfg: its DATASETS.TRAIN is read.
        prepare: from an input of detectron2's contract to what the graph is fed, (1, 3, H, W).
        count: how many, spread over the whole set.
    """

    def __init__(self, cfg: CfgNode, prepare: Callable[[dict[str, Any]], Tensor], count: int) -> None:
        records = get_detection_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=False)
        mapper = SemSegMapper(cfg, is_train=False)
        self._prepare = prepare
        self._items: Iterator[dict[str, Any]] = (
            mapper(record) for record in tqdm(evenly_spaced(records, count), desc="calibration", unit="image")
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The graph's inputs by name, or None after the last.

        Raises:
            ValueError: an image cannot be read; the message names it.
        """
        item = next(self._items, None)
        return None if item is None else {"image": self._prepare(item).numpy()}


def quantize(cfg: CfgNode, graph: Any, metadata: ExportMetadata, images: int) -> Any:
    """The int8 form of an exported float32 network, in ONNX's QDQ form.

    Args:
        cfg: of the student, for its training images.
        graph: of float32, an ``onnx.ModelProto``.
        metadata: of the network.
        images: how many training images the ranges of activations are taken from.

    Returns:
        An ``onnx.ModelProto``.

    Raises:
        ValueError: there are no training images.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static

    if not cfg.DATASETS.TRAIN or images < 1:
        raise ValueError("int8 is calibrated on training images: DATASETS.TRAIN must name some.")
    shown = ExportedNetwork(torch.zeros_like, metadata)  # for what it does with an image before the graph
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, "int8.onnx")
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # it advises a preparation that the exporter has done already
        try:
            quantize_static(
                graph,
                written,
                CalibrationImages(cfg, shown.prepare, images),
                op_types_to_quantize=_QUANTIZED,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        finally:
            root.setLevel(level)
        return onnx.load(written)
