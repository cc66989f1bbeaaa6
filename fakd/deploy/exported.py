"""An exported file under detectron2's contract, so that the one evaluator takes it for a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.modeling.postprocessing import sem_seg_postprocess
from torch import Tensor, nn

from .metadata import ExportMetadata, read_metadata

Run = Callable[[Tensor], Tensor]  # from images (N, 3, H, W) to scores (N, K, H, W)


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
    """A file of :func:`fakd.deploy.export.export`, asked as a :class:`~fakd.modeling.Segmentor` is.

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


def open_session(model: str | bytes, device: str = "cpu", threads: int = 0) -> Any:
    """An ``onnxruntime.InferenceSession``.

    Args:
        model: path, or the content of a file.
        device: "cuda" uses onnxruntime's CUDA provider where it has one.
        threads: at most; 0 leaves the choice to onnxruntime.

    Raises:
        ValueError: onnxruntime is not installed, or cannot open the model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError("onnxruntime is not installed: pip install 'fakd[export]'.") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors come as exceptions
    options.intra_op_num_threads = threads
    wanted = ["CUDAExecutionProvider"] if device != "cpu" else []
    providers = [p for p in wanted if p in onnxruntime.get_available_providers()] + ["CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(model, options, providers=providers)
    except Exception as error:  # onnxruntime's errors share no base but this
        name = f"'{model}'" if isinstance(model, str) else "the exported graph"
        raise ValueError(f"onnxruntime cannot open {name}: {error}") from error


def session_run(session: Any) -> Run:
    """What a session computes, on tensors."""

    def run(image: Tensor) -> Tensor:
        return torch.from_numpy(
            session.run(None, {"image": np.ascontiguousarray(image.numpy(force=True))})[0]
        )

    return run


def load_exported(path: str | Path, device: str = "cpu", allow_pickle: bool = False) -> ExportedNetwork:
    """The network in an exported file.

    Args:
        path: ends in ``.onnx``, ``.ts`` (TorchScript) or ``.pt2`` (torch.export).
        device: see :func:`open_session`; PyTorch's own formats run on the CPU.
        allow_pickle: open ``.pt2`` too, whose reader in PyTorch runs whatever code the file holds.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be opened, may not be, or is none of this project's.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no exported network at '{path}'.")
    if path.suffix == ".pt2" and not allow_pickle:
        raise ValueError(
            f"'{path}' is of torch.export, whose reader runs any code that such a file holds. If you trust "
            "its author, give --allow-pickle; ONNX needs no trust."
        )
    run: Run
    if path.suffix == ".onnx":
        session = open_session(str(path), device)
        found, run = session.get_modelmeta().custom_metadata_map, session_run(session)
    else:
        found = dict.fromkeys(ExportMetadata.model_fields, "")
        try:
            if path.suffix == ".ts":
                graph = torch.jit.load(path, "cpu", _extra_files=found)
            else:
                graph = torch.export.load(path, extra_files=found).module()
        except Exception as error:  # a foreign file raises many kinds of errors
            raise ValueError(f"PyTorch cannot open '{path}': {error}") from error

        def run(image: Tensor) -> Tensor:  # no sub-module, for the graph refuses eval()
            return graph(image)

    return ExportedNetwork(run, read_metadata(found, path))
