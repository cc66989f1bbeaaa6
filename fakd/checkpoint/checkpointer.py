"""Saving and loading of runs: atomic, tensors only, with a fallback for damaged files."""

import contextlib
import logging
import os
import pickle
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from safetensors.torch import load_file
from torch import Tensor

from fakd.files import atomic_write

logger = logging.getLogger(__name__)

RANGE = re.compile(r"\.(?:input|output)_range\.\w+$")
_RUN_FILE = re.compile(r"model_\d{7}\.pth")


class Checkpointer(DetectionCheckpointer):
    """detectron2's checkpointer with whole files, old ones pruned, and no code run on loading.

    Two kinds of file lie in a run's folder. ``model_<7 digits>.pth`` hold all of a run's state and are what
    a run resumes from. All others (``model_final``, ``model_best``) hold the model alone; detectron2 would
    take them for the last checkpoint and lose the optimizer's state on resume.

    Attributes:
        as_tested: a block in which the model has the weights that are tested and kept, if not its own.
    """

    as_tested: Callable[[], contextlib.AbstractContextManager] = staticmethod(contextlib.nullcontext)

    def __init__(
        self,
        model: torch.nn.Module,
        save_dir: str = "",
        *,
        keep: int = 2,
        allow_pickle: bool = False,
        **checkpointables: Any,
    ) -> None:
        """
        Args:
            model: its ``state_dict()`` is what evaluation needs; for a Distiller the student's.
            save_dir: the run's folder.
            keep: number of files with all the state to keep, the newest; 0 keeps all.
            allow_pickle: load files that hold more than tensors and plain values. They can run any code.
            checkpointables: further parts of the run's state.

        Raises:
            ValueError: ``keep`` is negative.
        """
        if keep < 0:
            raise ValueError(f"keep (SOLVER.CHECKPOINT_KEEP) is {keep}, but must be 0 (all) or more.")
        super().__init__(model, save_dir, **checkpointables)
        self.keep = keep
        self.allow_pickle = allow_pickle
        self._intact: set[Path] = set()
        self._damaged: set[Path] = set()

    def save(self, name: str, **kwargs: Any) -> None:
        """Writes all the state to ``<save_dir>/<name>.pth``, then deletes the oldest such files.

        Files that a resume found damaged are deleted too: newer by name than what is saved after it, they
        would be kept in its place.

        Raises:
            OSError: the disk is full or not writable. Earlier checkpoints are untouched.
            FloatingPointError: a weight is not finite; then nothing is written.
        """
        state = {key: part.state_dict() for key, part in self.checkpointables.items()}
        if self._write(name, {"model": self.model.state_dict(), **state, **kwargs}):
            self.tag_last_checkpoint(f"{name}.pth")
            written = Path(self.save_dir, f"{name}.pth")
            self._damaged.discard(written)
            whole = [path for path in self.run_files() if path not in self._damaged]
            for old in {*self._damaged, *whole[self.keep :]} - {written} if self.keep else ():
                old.unlink(missing_ok=True)

    def save_model(self, name: str, **kwargs: Any) -> None:
        """Writes the model alone, as it is tested, and ``kwargs`` beside it, to ``<save_dir>/<name>.pth``.

        Raises:
            OSError, FloatingPointError: see :meth:`save`.
        """
        with self.as_tested():
            self._write(name, {"model": self.model.state_dict(), **kwargs})

    def run_files(self) -> list[Path]:
        """The files with all the state, newest first."""
        folder = Path(self.save_dir)
        return sorted((p for p in folder.glob("model_*.pth") if _RUN_FILE.fullmatch(p.name)), reverse=True)

    def has_checkpoint(self) -> bool:
        """Whether there is something to resume from."""
        return bool(self.get_checkpoint_file())

    def get_checkpoint_file(self) -> str:
        """The newest undamaged file with all the state; "" when the run has not saved any.

        Raises:
            ValueError: every such file is damaged.
        """
        damaged: list[str] = []
        for path in self.run_files():
            if path in self._intact or _is_intact(path):
                if damaged:
                    logger.warning(
                        f"The checkpoint {', '.join(damaged)} is damaged. "
                        f"Falling back to the one before: {path}."
                    )
                self._intact.add(path)
                self._damaged.discard(path)
                return str(path)
            damaged.append(str(path))
            self._damaged.add(path)
        if damaged:
            raise ValueError(
                f"Nothing to resume from: {', '.join(damaged)} is damaged and no older checkpoint is left. "
                "Start again in another OUTPUT_DIR."
            )
        return ""

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Notes the newest file in ``last_checkpoint``, for detectron2's own tools."""
        with atomic_write(os.path.join(self.save_dir, "last_checkpoint"), "w") as file:
            file.write(last_filename_basename)

    def _write(self, name: str, state: dict[str, Any]) -> bool:
        if not self.save_dir or not self.save_to_disk:
            return False
        path = Path(self.save_dir, f"{name}.pth")
        if bad := not_finite(state["model"]):
            raise FloatingPointError(
                f"'{path}' was not written: '{bad[0]}' is NaN or infinite, though every loss was finite. A "
                "gradient overflowed; the checkpoints before it are good. Lower SOLVER.BASE_LR or set "
                "SOLVER.CLIP_GRADIENTS.ENABLED True, and start in another OUTPUT_DIR."
            )
        logger.info(f"Saving checkpoint to {path}")
        with atomic_write(path) as file:
            try:
                torch.save(state, file)
            except RuntimeError as error:
                # torch's writer hides why the stream failed behind an error of its own.
                raise error.__context__ if isinstance(error.__context__, OSError) else error from None
        return True

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """detectron2's, for a file that is there.

        Raises:
            FileNotFoundError: it is not.
        """
        if path and "://" not in path and not Path(path.partition("?")[0]).is_file():
            raise FileNotFoundError(
                f"There are no weights at '{path}' (MODEL.WEIGHTS, looked from {Path.cwd()})."
            )
        return super().load(path, *args, **kwargs)

    def _load_file(self, filename: str) -> dict[str, Any]:
        if filename.endswith(".pkl") and not self.allow_pickle:
            raise ValueError(_refusal(filename, "is a Python pickle"))
        return super()._load_file(filename)

    def _torch_load(self, f: str) -> Any:
        return load_tensors(f, self.allow_pickle)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        num_keys = len(checkpoint["model"])
        incompatible = super()._load_model(checkpoint)
        # A float network's file has no ranges of int8: the first batch sets them.
        incompatible.missing_keys[:] = [k for k in incompatible.missing_keys if not RANGE.search(k)]
        if num_keys and len(incompatible.unexpected_keys) + len(incompatible.incorrect_shapes) >= num_keys:
            raise ValueError(
                f"None of the {num_keys} weights in the file fits the model (the first: "
                f"'{(incompatible.unexpected_keys or incompatible.incorrect_shapes[0])[0]}'). "
                "Check that MODEL.WEIGHTS belongs to this config."
            )
        return incompatible


def load_tensors(path: str, allow_pickle: bool = False) -> Any:
    """``torch.load`` onto the CPU, restricted to tensors and plain values; or a ``.safetensors`` file.

    Args:
        path: a local file.
        allow_pickle: lift the restriction. The file can then run any code.

    Raises:
        ValueError: the file is damaged, holds more than tensors and plain values, or weights without a name
            or without values.
    """
    if zipfile.is_zipfile(path) and not _is_intact(Path(path)):  # torch does not check the checksums
        raise ValueError(
            f"The file '{path}' is damaged: its content has not the checksums it was written with. Fetch or "
            "copy it again."
        )
    try:
        if path.endswith(".safetensors"):
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=not allow_pickle)
    except FileNotFoundError:
        raise
    except pickle.UnpicklingError as error:
        foreign = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        reason = f"holds a {foreign[1]}" if foreign else "is no plain checkpoint"
        raise ValueError(_refusal(path, reason)) from error
    except Exception as error:  # a damaged file raises many kinds of errors, some of them the system's
        if isinstance(error, OSError) and error.filename:
            raise
        raise ValueError(f"The file '{path}' is damaged or no checkpoint: {error!r}") from error
    if not isinstance(content, Mapping) or not isinstance(content.get("model", {}), Mapping):
        raise ValueError(f"The file '{path}' is no checkpoint: it holds no weights by name.")
    _check_weights(content, path)
    return content


def not_finite(weights: Mapping[str, Tensor]) -> list[str]:
    """Names of the weights that hold NaN or infinity."""
    return [key for key, x in weights.items() if x.is_floating_point() and not x.isfinite().all()]


def _check_weights(content: Mapping[Any, Any], path: str) -> None:
    """Refuses weights without a name or without plain values."""
    below = (content.get(key) for key in ("state_dict", "model"))
    weights = next((found for found in below if isinstance(found, Mapping)), content)
    for name, value in weights.items():
        if not isinstance(name, str):
            raise ValueError(
                f"The file '{path}' is no checkpoint: it has {name!r} where the name of a weight should be. "
                "Save a network's state_dict()."
            )
        if isinstance(value, Tensor) and (value.is_meta or value.layout != torch.strided):
            what = "has no values (a meta tensor)" if value.is_meta else "is a sparse tensor"
            raise ValueError(
                f"The file '{path}': the weight '{name}' {what}. Save the network with dense weights that "
                "are on a device."
            )


def _refusal(path: str, reason: str) -> str:
    return (
        f"The file '{path}' {reason}. Only tensors and plain values are loaded, because anything else could "
        "run any code. If you trust the file's author, set CHECKPOINT.ALLOW_PICKLE True."
    )


def _is_intact(path: Path) -> bool:
    """Whether every record of the archive has the checksum it was written with."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError):
        return False
