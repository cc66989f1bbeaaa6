"""int8 for an exported network: onnxruntime's static quantisation, calibrated on training images."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from tqdm import tqdm

from fakd.data import SemSegMapper
from fakd.files import atomic_write

from .exported import load_exported
from .network import Card

# Nearly all of the work. What is between convolutions stays float: the sums of attention and of pooled maps
# lose more than they save.
_QUANTIZED = ["Conv"]


class _Images:
    """Training images as the network is shown them in a test, spread over the whole set, as onnxruntime reads
    them."""

    def __init__(self, cfg: CfgNode, path: Path, count: int) -> None:
        records = get_detection_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=False)
        chosen = np.linspace(0, len(records) - 1, min(count, len(records))).round().astype(int)
        mapper = SemSegMapper(cfg, is_train=False)
        self._network = load_exported(path)
        self._items: Iterator[dict[str, Any]] = (
            mapper(records[i]) for i in tqdm(chosen, desc="calibration", unit="image")
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        item = next(self._items, None)
        return None if item is None else {"image": self._network.prepare(item).numpy()}


def quantize(cfg: CfgNode, source: Path, target: str | Path, card: Card, images: int) -> None:
    """Writes the int8 form of an exported float32 network, in ONNX's QDQ form.

    Args:
        cfg: of the student, for its training images.
        source: the float32 file.
        target: the file to write.
        card: of the int8 network.
        images: how many training images the ranges of activations are taken from.

    Raises:
        ValueError: there are no training images.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static

    if not cfg.DATASETS.TRAIN or images < 1:
        raise ValueError("int8 is calibrated on training images: DATASETS.TRAIN must name some.")
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, "int8.onnx")
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # it advises a preparation that the exporter has done already
        try:
            quantize_static(
                source,
                written,
                _Images(cfg, source, images),
                op_types_to_quantize=_QUANTIZED,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        finally:
            root.setLevel(level)
        model = onnx.load(written)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, card.as_json())
    with atomic_write(target) as file:
        file.write(model.SerializeToString())
