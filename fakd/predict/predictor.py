"""A trained student, asked for the classes of pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from detectron2.data import transforms as T
from PIL import Image
from torch import nn

from fakd.data.augmentations import RandomScale, build_augmentations
from fakd.data.bands import is_array, read_array
from fakd.data.images import as_array, decode, read_image
from fakd.deploy.exported import load_exported
from fakd.deploy.formats import format_of
from fakd.deploy.metadata import build_metadata
from fakd.deploy.source import load_student, read_source
from fakd.engine.check import check_device
from fakd.evaluation import TestTimeModel, as_tested

Answer = TypeVar("Answer")
Picture = str | Path | Image.Image | np.ndarray


class Predictor:
    """A trained student, asked as in its test: the config's size rules, windows, scales and mirrors hold.

    Args:
        source: the folder of a run, a config file, or a file of ``fakd export``.
        weights: with a config file, needed; with a folder, in place of its ``model_final.pth``.
        device: "cpu", "cuda", ...; default a GPU if PyTorch finds one. Exported files run on the CPU;
            those for ONNX on a GPU where onnxruntime can.
        batch_size: how many pictures of one size the network is shown at once.
        opts: ``[KEY, VALUE, ...]``, config keys; not with an exported file.
        allow_plugins: run the code of the PLUGINS that the config names.
        allow_pickle: open weights, and files of torch.export, that can run any code.

    Attributes:
        classes: the K names.
        colours: (K, 3) uint8 RGB.
        channels: C of a picture.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: the weights are not of the config, the exported file is none of this project's, a file
            could run code that is not allowed, the device cannot be used, or ``batch_size`` is not positive.
    """

    def __init__(
        self,
        source: str | Path,
        weights: str | Path | None = None,
        *,
        device: str | None = None,
        batch_size: int = 1,
        opts: Sequence[str] = (),
        allow_plugins: bool = False,
        allow_pickle: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"The batch size must be positive, got {batch_size}.")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        source = Path(source)
        self._network: nn.Module
        if format_of(source):
            network = load_exported(source, device, allow_pickle)
            metadata = network.metadata
            self._network = (
                TestTimeModel(network, metadata.window, metadata.stride) if any(metadata.window) else network
            )
            self._resize = [RandomScale(1.0, 1.0, metadata.base_size)] if any(metadata.base_size) else []
        else:
            check_device(device, "device")
            opts = [*opts, "MODEL.DEVICE", device]
            run, config_file = (source, None) if source.is_dir() else (None, str(source))
            cfg, path = read_source(
                run, config_file, weights, opts, allow_plugins=allow_plugins, allow_pickle=allow_pickle
            )
            student = load_student(cfg, path)
            metadata = build_metadata(cfg, student, None, True, "float32")
            self._network = as_tested(student, cfg)
            self._resize = build_augmentations(cfg, is_train=False)
        self._format, self.channels = metadata.input_format, len(metadata.pixel_mean)
        self.classes, self.colours = metadata.classes, np.array(metadata.colours, np.uint8)
        self.batch_size = batch_size

    def __call__(self, picture: Picture) -> np.ndarray:
        """The class of every pixel.

        Args:
            picture: of any size: the path of a file, a PIL image, or an array (H, W, 3) of uint8 in **RGB**
                (``image[..., ::-1]`` of what OpenCV reads); for a student of other than three channels a path
                or an array (H, W, C) of numbers.

        Returns:
            (H, W) class ids at the picture's own size, uint8 for up to 256 classes, else uint16.

        Raises:
            ValueError: a file is no picture, or an array has another shape or type.
        """
        return self.predict_batch([picture])[0]

    def predict_batch(self, pictures: Sequence[Picture]) -> list[np.ndarray]:
        """The same for pictures of any sizes, in batches."""
        return self._each(pictures, self._labels)

    def predict_with_confidence(self, pictures: Sequence[Picture]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The class of every pixel and, (H, W) float32, the probability that the network gives it.

        In windows it is that of the averaged scores, at several scales or mirrored the average.
        """
        return self._each(pictures, self._labels_and_confidence)

    def _labels(self, scores: torch.Tensor) -> np.ndarray:
        ids = scores.max(dim=0).indices.cpu().numpy()
        return ids.astype(np.uint8 if len(self.classes) <= 256 else np.uint16)

    def _labels_and_confidence(self, scores: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        views = self._network
        averaged = isinstance(views, TestTimeModel) and (len(views.scales) > 1 or views.flip)
        probabilities = scores if averaged else scores.float().softmax(0)
        return self._labels(scores), probabilities.amax(0).cpu().numpy()

    def _each(self, pictures: Sequence[Picture], answer: Callable[[torch.Tensor], Answer]) -> list[Answer]:
        """What ``answer`` makes of the scores (K, H, W) of each picture."""
        inputs = [self._input(read_picture(picture, self.channels)) for picture in pictures]
        answers: dict[int, Answer] = {}
        # Only pictures of one size share a batch: padding would change what is near the border.
        by_size: dict[tuple[int, ...], list[int]] = {}
        for i, item in enumerate(inputs):
            by_size.setdefault(tuple(item["image"].shape), []).append(i)
        for members in by_size.values():
            for start in range(0, len(members), self.batch_size):
                batch = members[start : start + self.batch_size]
                with torch.inference_mode():
                    outputs = self._network([inputs[i] for i in batch])
                for i, output in zip(batch, outputs, strict=True):
                    answers[i] = answer(output["sem_seg"])
        return [answers[i] for i in range(len(inputs))]

    def _input(self, image: np.ndarray) -> dict[str, Any]:
        """detectron2's input for an RGB image."""
        shown = T.AugInput(image if self._format == "RGB" else image[..., ::-1])
        T.AugmentationList(self._resize)(shown)
        tensor = torch.from_numpy(np.ascontiguousarray(shown.image.transpose(2, 0, 1)))
        return {"image": tensor, "height": image.shape[0], "width": image.shape[1]}


def read_picture(picture: Picture, channels: int = 3) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a file or PIL image, turned as its EXIF data says, or of such an array.

    (H, W, C) float32 where it is an array of measured values, :func:`fakd.data.bands.is_array`.

    Raises:
        ValueError: a file is no picture, or an array has another shape or type.
    """
    if isinstance(picture, str | Path) and is_array(str(picture), channels):
        return read_array(str(picture), channels)
    if channels != 3:
        values = np.asarray(picture)
        if values.ndim != 3 or values.shape[2] != channels or values.dtype.kind not in "uif":
            raise ValueError(
                f"A picture given as an array must be (height, width, {channels}) of numbers, as "
                f"INPUT.CHANNELS says; this one is {values.shape} of {values.dtype}."
            )
        return values.astype(np.float32)
    if isinstance(picture, str | Path):
        return read_image(str(picture))
    if isinstance(picture, Image.Image):
        return as_array(decode(picture), "RGB")
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ValueError(
            f"A picture given as an array must be (height, width, 3) of uint8 in RGB; this one is "
            f"{picture.shape} of {picture.dtype}."
        )
    return picture
