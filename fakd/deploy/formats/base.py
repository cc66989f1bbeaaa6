"""What a format is, and what all of them share."""

from __future__ import annotations

import importlib.util
import io
import json
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from fakd.deploy.metadata import ExportMetadata
from fakd.deploy.network import DeployedNetwork

Run = Callable[[Tensor], Tensor]  # from images (N, C, H, W) to scores (N, K, H, W), both float32 on the CPU
Files = Mapping[str, bytes]  # content by the ending that follows the student's name
OPSET = 18  # the oldest that torch.onnx writes, and so the one that most runtimes know


class Format(ABC):
    """A way to write a network to a file that a runtime opens without this project.

    Attributes:
        name: after ``--format``.
        ending: of the file that is named; others of the same student may lie beside it.
        extra: of setup.cfg, what brings the packages; "" where PyTorch is enough.
        modules: that must be importable to write and to open.
        runtime: what opens the file, the name that a benchmark gives it.
        limits: what the runtime does not do, in one sentence; "" for none.
        any_size: whether images of any size and number can be taken, or one at a time of a fixed size.
        precisions: of :data:`fakd.deploy.metadata.PRECISIONS`.
        runs_here: whether this machine has the runtime; else a file is written without comparison.
        opening_runs_code: whether a file can run any code where it is opened.
    """

    name: ClassVar[str]
    ending: ClassVar[str]
    extra: ClassVar[str] = ""
    modules: ClassVar[tuple[str, ...]] = ()
    runtime: ClassVar[str]
    limits: ClassVar[str] = ""
    any_size: ClassVar[bool] = True
    precisions: ClassVar[tuple[str, ...]] = ("float32",)
    runs_here: ClassVar[bool] = True
    opening_runs_code: ClassVar[bool] = False

    @abstractmethod
    def write(
        self, network: DeployedNetwork, metadata: ExportMetadata, opset: int = OPSET, batch: int = 1
    ) -> Files:
        """The files of a network.

        Args:
            network: on the CPU.
            metadata: goes into the files; its ``size`` fixes the input, None leaves size and number free.
            opset: of ONNX, where the way leads through it.
            batch: number of images, where the size is fixed.

        Raises:
            ValueError: the format cannot express the network; the message names the operator, or says that
                the size must be fixed.
        """

    @abstractmethod
    def open(self, path: Path, device: str = "cpu", threads: int = 0) -> tuple[Run, Mapping[str, str]]:
        """What a file computes, and what :meth:`ExportMetadata.as_json` wrote into it.

        Args:
            path: of the file with :attr:`ending`.
            device: "cpu", or "cuda" where the runtime can.
            threads: of the CPU; 0 leaves the choice to the runtime.

        Raises:
            ValueError: the runtime cannot open the file.
        """

    def require(self) -> None:
        """Raises:
        ValueError: a package is not installed; the message has the command that installs it.
        """
        missing = [name for name in self.modules if importlib.util.find_spec(name) is None]
        if missing:
            verb = "is" if len(missing) == 1 else "are"
            raise ValueError(
                f"{' and '.join(missing)} {verb} not installed: pip install 'fakd[{self.extra}]'."
            )

    def check(self, size: tuple[int, int] | None, precision: str) -> None:
        """Raises:
        ValueError: a package is missing, or the format has no such size or precision.
        """
        if precision not in self.precisions:
            raise ValueError(
                f"{self.name} is written in {' or '.join(self.precisions)}, not in {precision} "
                "(docs/deploy.md says which format has it)."
            )
        if size is None and not self.any_size:
            raise ValueError(f"{self.name} takes images of one size: give --size H W.")
        self.require()

    def stem(self, path: str | Path) -> str:
        """The path without the ending.

        Raises:
            ValueError: it has another ending.
        """
        if not str(path).endswith(self.ending):
            raise ValueError(f"A file of the format {self.name} must end in {self.ending}, unlike '{path}'.")
        return str(path).removesuffix(self.ending)


def open_graph(
    load: Callable[[dict[str, str]], Callable[[Tensor], Tensor]], path: Path, threads: int
) -> tuple[Run, Mapping[str, str]]:
    """:meth:`Format.open` for graphs that PyTorch itself runs.

    Args:
        load: opens the file, and fills the values of a dictionary whose keys are the names of the metadata.
        path, threads: see :meth:`Format.open`.
    """
    found = dict.fromkeys(ExportMetadata.model_fields, "")
    try:
        graph = load(found)
    except Exception as error:  # a foreign file fails in too many ways to name
        raise ValueError(f"PyTorch cannot open '{path}': {error}") from error
    if threads:
        torch.set_num_threads(threads)

    def run(image: Tensor) -> Tensor:  # no sub-module, for the graph refuses eval()
        return graph(image)

    return run, found


_NAME = "fakd.json"


def with_metadata(content: bytes, metadata: ExportMetadata) -> bytes:
    """A file with the metadata behind it, as a zip: readers that begin at its front do not see it.

    LiteRT's own tools keep files that belong to a model in this way.
    """
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(_NAME, json.dumps(metadata.as_json()))
    return file.getvalue()


def metadata_behind(path: Path) -> Mapping[str, str]:
    """What :func:`with_metadata` put behind a file; empty if nothing did.

    Raises:
        ValueError: it is damaged.
    """
    if not zipfile.is_zipfile(path):
        return {}
    try:
        with zipfile.ZipFile(path) as archive:
            content = archive.read(_NAME) if _NAME in archive.namelist() else b"{}"
    except Exception as error:  # a damaged zip fails in too many ways to name
        raise _damaged(path, error) from error
    return parsed(content, path)


def parsed(content: bytes, path: Path) -> Mapping[str, str]:
    """Metadata of a file of JSON.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return dict(json.loads(content))
    except (ValueError, TypeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"The metadata in '{path}' is damaged ({error}). Copy it anew, or export again.")
