"""Predictions for pictures, folders, videos and cameras, as overlays and label pictures."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from fakd.data.bands import stretched
from fakd.evaluation.predictions import write_label_picture
from fakd.files import atomic_write

from .overlay import overlay
from .predictor import Predictor, read_picture

KINDS = ("overlay", "labels", "both")
VIDEOS = {".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg"}


@dataclass
class Demo:
    """Writes what a student makes of pictures.

    Attributes:
        predictor: the student.
        output: folder to write into.
        kind: "overlay", ``<name>_overlay.jpg`` with a legend; "labels", ``<name>_labels.png`` of class ids
            with the classes' colours as palette; or "both".
        opacity: of the overlay's colours.
        skipped: what could not be read, a message each.
        written: number of files.
    """

    predictor: Predictor
    output: Path
    kind: str = "overlay"
    opacity: float = 0.5
    skipped: list[str] = field(default_factory=list)
    written: int = 0

    def pictures(self, files: Sequence[tuple[Path, str]]) -> None:
        """Pictures by path, with the name of the result each; those that cannot be read are skipped."""
        read: list[tuple[str, np.ndarray]] = []
        for i, (path, name) in enumerate(tqdm(files, unit="picture")):
            try:
                read.append((name, read_picture(path, self.predictor.channels)))
            except ValueError as error:
                self.skipped.append(str(error))
                tqdm.write(f"skipped: {error}")
            if read and (len(read) == self.predictor.batch_size or i + 1 == len(files)):
                for (name, image), labels in zip(
                    read, self.predictor.predict_batch([x for _, x in read]), strict=True
                ):
                    self._write(name, stretched(image), labels)
                read = []

    def video(self, source: str | int, name: str, most: int | None = None) -> None:
        """A video file or, by its number, a camera, frame by frame; its overlay is ``<name>_overlay.mp4``.

        Args:
            source: path, or number of the camera.
            name: of the result, and for label pictures of a folder of ``<frame>_labels.png``.
            most: number of frames after which to stop; default all, a camera's until Ctrl-C.

        Raises:
            ValueError: it cannot be opened, or gives no frame.
            OSError: the video cannot be written.
        """
        what = f"camera {source}" if isinstance(source, int) else f"video '{source}'"
        capture = cv2.VideoCapture(source)
        try:
            if not capture.isOpened():
                raise ValueError(f"The {what} cannot be opened.")
            count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if isinstance(source, str) else 0
            total = min(filter(None, (count if count > 0 else None, most)), default=None)
            frames = tqdm(_frames(capture, most), unit="frame", total=total)
            rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
            if not self._video(frames, name, rate, endless=isinstance(source, int)):
                raise ValueError(f"The {what} gives no frame: it is empty, damaged or of an unknown kind.")
        finally:
            capture.release()

    def _video(self, frames: Iterator[np.ndarray], name: str, rate: float, endless: bool) -> int:
        """The number of frames; Ctrl-C is the end of an endless video and not an error."""
        path = self.output / f"{name}_overlay.mp4"
        partial = path.with_name(f"{path.stem}.{os.getpid()}.partial.mp4")  # OpenCV takes the format from it
        writer: cv2.VideoWriter | None = None
        number = 0
        try:
            with contextlib.suppress(*([KeyboardInterrupt] if endless else [])):
                for batch in _batches(frames, self.predictor.batch_size):
                    for image, labels in zip(batch, self.predictor.predict_batch(batch), strict=True):
                        number += 1
                        if self.kind != "overlay":
                            self._write_labels(self.output / name / f"{number:06d}_labels.png", labels)
                        if self.kind == "labels":
                            continue
                        drawn = self._overlay(image, labels)
                        height, width = drawn.shape[0] // 2 * 2, drawn.shape[1] // 2 * 2  # what codecs want
                        if writer is None:
                            writer = _video_writer(partial, rate, (width, height))
                        writer.write(cv2.cvtColor(drawn[:height, :width], cv2.COLOR_RGB2BGR))
            if writer is not None:
                writer.release()
                os.replace(partial, path)
                self.written += 1
        finally:
            if writer is not None:
                writer.release()
            partial.unlink(missing_ok=True)
        return number

    def _write(self, name: str, image: np.ndarray, labels: np.ndarray) -> None:
        if self.kind != "labels":
            path = self.output / f"{name}_overlay.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as file:
                Image.fromarray(self._overlay(image, labels)).save(file, format="jpeg", quality=92)
            self.written += 1
        if self.kind != "overlay":
            self._write_labels(self.output / f"{name}_labels.png", labels)

    def _write_labels(self, path: Path, labels: np.ndarray) -> None:
        write_label_picture(path, labels, self.predictor.colours)
        self.written += 1

    def _overlay(self, image: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return overlay(image, labels, self.predictor.classes, self.predictor.colours, self.opacity)


def find_inputs(given: Sequence[str]) -> tuple[list[tuple[Path, str]], list[tuple[Path, str]]]:
    """Pictures and videos with the names of their results, of paths of files and folders.

    A file is a video by its ending, else a picture. Of a folder those files count that PIL, OpenCV or numpy
    may read by their ending, those of sub-folders too, whose names their results keep.

    Raises:
        FileNotFoundError: a path does not exist, or a folder holds nothing to show.
        ValueError: two inputs would be written under one name.
    """
    endings = {*Image.registered_extensions(), *VIDEOS, ".npy"}
    found: list[tuple[Path, str]] = []
    for path in map(Path, given):
        if path.is_dir():
            files = sorted(f for f in path.rglob("*") if f.suffix.lower() in endings and f.is_file())
            if not files:
                raise FileNotFoundError(f"The folder '{path}' holds no picture and no video.")
            found += [(f, str(f.relative_to(path).with_suffix(""))) for f in files]
        elif path.is_file():
            found.append((path, path.stem))
        else:
            raise FileNotFoundError(f"There is no file or folder '{path}'.")
    names: dict[str, Path] = {}
    for path, name in found:
        if name in names:
            raise ValueError(f"'{names[name]}' and '{path}' would be written as one: do one after the other.")
        names[name] = path
    videos = [(path, name) for path, name in found if path.suffix.lower() in VIDEOS]
    return [entry for entry in found if entry not in videos], videos


def _frames(capture: cv2.VideoCapture, most: int | None) -> Iterator[np.ndarray]:
    """RGB."""
    number = 0
    while most is None or number < most:
        good, frame = capture.read()
        if not good:
            return
        number += 1
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def _batches(frames: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    batch: list[np.ndarray] = []
    for frame in frames:
        batch.append(frame)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _video_writer(path: Path, rate: float, size: tuple[int, int]) -> cv2.VideoWriter:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
    if not writer.isOpened():
        raise OSError(f"cannot write the video '{path}': this OpenCV cannot encode mp4.")
    return writer
