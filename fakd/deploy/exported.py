"""An exported file under detectron2's contract, so that the one evaluator takes it for a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.modeling.postprocessing import sem_seg_postprocess
from torch import Tensor, nn

from .formats import FORMATS, Run, format_of
from .metadata import ExportMetadata, read_metadata


class FixedSize(nn.Module):
    """A network under detectron2's contract that is shown every image at one size.

    Args:
        model: gives ``sem_seg`` scores of the size it is asked for.
        size: (H, W).
    """

    def __init__(self, model: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.model, self.size, self.training = model, size, model.training

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Tensor]]:
        """Per image ``{"sem_seg": (K, height, width)}``, at the size that the input asks for."""
        return self.model([at_size(item, self.size) for item in batched_inputs])


def at_size(item: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """An input of detectron2's contract with its image resized; the size of its result stays what it was."""
    image = item["image"]
    height, width = image.shape[1:]
    if (height, width) == tuple(size):
        return item
    resized = F.interpolate(image[None].float(), size, mode="bilinear", antialias=True)[0]
    return {"height": height, "width": width, **item, "image": resized}


class ExportedNetwork(nn.Module):
    """A file of :func:`fakd.deploy.student.export_student`, asked as a :class:`~fakd.modeling.Segmentor` is.

    Args:
        run: the graph in the file.
        metadata: what the file says of itself. If its size is fixed, images are resized to it.
    """

    def __init__(self, run: Run, metadata: ExportMetadata) -> None:
        super().__init__()
        self.run, self.metadata, self.input_format = run, metadata, metadata.input_format
        self.eval()

    def prepare(self, item: dict[str, Any]) -> Tensor:
        """What the graph is fed for an input of detectron2's contract: (1, 3, H, W)."""
        image = (at_size(item, self.metadata.size) if self.metadata.size else item)["image"].float()
        if not self.metadata.normalize:
            mean, std = torch.tensor(self.metadata.pixel_mean), torch.tensor(self.metadata.pixel_std)
            image = (image - mean[:, None, None]) / std[:, None, None]
        return image[None]

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Tensor]]:
        """Per image ``{"sem_seg": (K, height, width)}``.

        As :meth:`fakd.modeling.segmentor.Segmentor.forward` in evaluation.
        """
        return [{"sem_seg": self._scores(item)} for item in batched_inputs]

    def _scores(self, item: dict[str, Any]) -> Tensor:
        image = self.prepare(item)
        scores = self.run(image)[0]
        shown, (height, width) = tuple(image.shape[2:]), item["image"].shape[1:]
        asked = item.get("height", height), item.get("width", width)
        return scores if asked == shown else sem_seg_postprocess(scores, shown, *asked)


def load_exported(path: str | Path, device: str = "cpu", allow_pickle: bool = False) -> ExportedNetwork:
    """The network in an exported file.

    Args:
        path: its ending says which of :data:`fakd.deploy.formats.FORMATS` it is.
        device: "cuda" for ONNX alone, where onnxruntime can.
        allow_pickle: open files too that can run any code, as those of torch.export.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be opened, may not be, or is none of this project's.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no exported network at '{path}'.")
    made = format_of(path)
    if made is None:
        endings = ", ".join(each.ending for each in FORMATS.values())
        raise ValueError(f"'{path}' has the ending of no format that students are exported in: {endings}.")
    if made.opening_runs_code and not allow_pickle:
        raise ValueError(
            f"'{path}' is of {made.runtime}, whose reader runs any code that such a file "
            "holds. If you trust its author, give --allow-pickle; ONNX needs no trust."
        )
    made.require()
    run, found = made.open(path, device)
    return ExportedNetwork(run, read_metadata(found, path))
