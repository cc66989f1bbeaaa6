"""What a teacher says of fixed views of the training images, in memory-mapped files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from pydantic import BaseModel, ConfigDict

from .files import atomic_write, file_digest
from .structures import SegSpec
from .validation import parse, read_json

# Keys that decide what a view shows.
_VIEWED = ("INPUT", "MODEL.PIXEL_MEAN", "MODEL.SEM_SEG_HEAD.IGNORE_VALUE")
REMEDY = "make the cache anew (`fakd cache`), or train without KD.TEACHER.CACHE"


class CacheInfo(BaseModel):
    """What a cache holds.

    Attributes:
        teacher: digest of the teacher's weights.
        scale: KD.TEACHER.SCALE.
        data: digest of the names and sizes of the images and labels, in their order.
        look: digest of what decides how an image is cut, scaled and coloured.
        images: number of images.
        views: of each image.
        seed: of the views.
        top: logits kept of a pixel; 0: all.
        num_classes, feature_channels, stage_channels: of the teacher.
        maps: shape of a view's map by name.
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    teacher: str
    scale: float
    data: str
    look: str
    images: int
    views: int
    seed: int
    top: int
    num_classes: int
    feature_channels: int
    stage_channels: dict[str, int]
    maps: dict[str, list[int]]

    @property
    def spec(self) -> SegSpec:
        """Of the teacher."""
        return SegSpec(self.num_classes, self.feature_channels, self.stage_channels)


class ViewCache:
    """A folder with a row per view of an image: view v of image i is row ``i * views + v``.

    Logits are kept in float16, all of them or the largest of a pixel, with the logarithm of what the others
    sum to in the softmax; other maps in float16.

    Args:
        folder: where the files are.

    Raises:
        FileNotFoundError: there is no cache.
        ValueError: its description is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        file = self.folder / "cache.json"
        if not file.is_file():
            raise FileNotFoundError(
                f"KD.TEACHER.CACHE: there is no cache in '{self.folder}' (no cache.json). "
                "`fakd cache` makes one."
            )
        self.info = parse(CacheInfo, read_json(file), file)
        self._arrays: dict[str, np.ndarray] = {}

    @classmethod
    def create(cls, folder: str | Path, info: CacheInfo) -> ViewCache:
        """An empty cache, or the one that was begun with the same description.

        Raises:
            ValueError: the folder holds another.
        """
        file = Path(folder, "cache.json")
        if file.is_file():
            cache = cls(folder)
            if cache.info != info:
                old, new = cache.info.model_dump(), info.model_dump()
                names = ", ".join(name for name in new if old[name] != new[name])
                raise ValueError(f"'{folder}' holds a cache of another {names}: choose another folder.")
            return cache
        file.parent.mkdir(parents=True, exist_ok=True)
        for name, (dtype, shape) in _layout(info).items():
            np.lib.format.open_memmap(
                file.parent / f"{name}.npy", "w+", dtype, (info.images * info.views, *shape)
            ).flush()
        with atomic_write(file, "w") as text:
            text.write(info.model_dump_json())
        return cls(folder)

    def missing(self) -> list[int]:
        """Rows that are not written yet."""
        return np.flatnonzero(self._array("written") == 0).tolist()

    def num_bytes(self) -> int:
        """Of all files."""
        rows = self.info.images * self.info.views
        return sum(
            rows * int(np.prod(shape, initial=1)) * np.dtype(dtype).itemsize
            for dtype, shape in _layout(self.info).values()
        )

    def write(self, rows: Sequence[int], maps: Mapping[str, np.ndarray]) -> None:
        """Keeps the maps (N, C, h, w) of N rows; those of unlisted names are left out."""
        for name, value in self._encoded(maps).items():
            self._array(name, "r+")[rows] = value
        # Last: what a killed process has written stays in the system's memory, in this order.
        self._array("written", "r+")[rows] = 1

    def read(self, rows: Sequence[int]) -> dict[str, np.ndarray]:
        """The maps (N, C, h, w) of N rows by name, in float32."""
        maps = {
            name: np.asarray(self._array(name)[rows], np.float32)
            for name in self.info.maps
            if name != "logits"
        }
        if not self.info.top:
            maps["logits"] = np.asarray(self._array("logits")[rows], np.float32)
            return maps
        kept, rest = self.info.top, np.asarray(self._array("logits_rest")[rows], np.float32)
        share = rest - np.float32(np.log(self.info.num_classes - kept))
        logits = np.repeat(share, self.info.num_classes, 1)
        classes = self._array("logits_class")[rows].astype(np.int64)
        np.put_along_axis(logits, classes, np.asarray(self._array("logits_top")[rows], np.float32), 1)
        maps["logits"] = logits
        return maps

    def check(self, cfg: CfgNode, records: Sequence[Mapping[str, Any]]) -> None:
        """Whether the cache is whole, and of the data, the views and the teacher of a config.

        Args:
            cfg: of the training.
            records: its dataset dicts, in their order.

        Raises:
            ValueError: it is not; the message says what differs.
        """
        weights = cfg.KD.TEACHER.WEIGHTS
        for what, kept, now in (
            ("images or labels", self.info.data, data_digest(records)),
            ("INPUT keys", self.info.look, look_digest(cfg)),
            ("KD.TEACHER.SCALE", self.info.scale, cfg.KD.TEACHER.SCALE),
            (
                "KD.TEACHER.WEIGHTS",
                self.info.teacher,
                file_digest(weights) if Path(weights).is_file() else self.info.teacher,
            ),
        ):
            if kept != now:
                raise ValueError(f"KD.TEACHER.CACHE '{self.folder}' was made with other {what}: {REMEDY}.")
        if missing := len(self.missing()):
            raise ValueError(
                f"KD.TEACHER.CACHE '{self.folder}' lacks {missing} of {self.info.images * self.info.views} "
                "views: the same call of `fakd cache` goes on with it."
            )

    def _array(self, name: str, mode: str = "r") -> np.ndarray:
        held = self._arrays.get(name)
        if held is None or (mode == "r+" and not held.flags.writeable):
            self._arrays[name] = np.load(self.folder / f"{name}.npy", mmap_mode=mode)  # type: ignore[arg-type]
        return self._arrays[name]

    def _encoded(self, maps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        encoded = {name: maps[name] for name in self.info.maps if name != "logits"}
        logits, kept = maps["logits"].astype(np.float32), self.info.top
        if not kept:
            return encoded | {"logits": logits}
        order = np.argsort(-logits, 1, kind="stable")
        sorted_ = np.take_along_axis(logits, order, 1)
        rest = sorted_[:, kept:]
        most = rest.max(1, keepdims=True)
        total = most + np.log(np.exp(rest - most).sum(1, keepdims=True))
        return encoded | {
            "logits_top": sorted_[:, :kept],
            "logits_class": order[:, :kept],
            "logits_rest": total,
        }


def _layout(info: CacheInfo) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of a row of every file."""
    files: dict[str, tuple[str, tuple[int, ...]]] = {"written": ("u1", ())}
    for name, (channels, *grid) in info.maps.items():
        if name == "logits" and info.top:
            files["logits_top"] = ("f2", (info.top, *grid))
            files["logits_class"] = ("u1" if channels <= 256 else "u2", (info.top, *grid))
            files["logits_rest"] = ("f2", (1, *grid))
        else:
            files[name] = ("f2", (channels, *grid))
    return files


def data_digest(records: Sequence[Mapping[str, Any]]) -> str:
    """Of the names and sizes in bytes of all images and labels, in their order."""
    digest = hashlib.sha256()
    for record in records:
        for key in ("file_name", "sem_seg_file_name"):
            path = Path(record[key]) if key in record else None
            digest.update(f"{path.name} {path.stat().st_size}\n".encode() if path else b"-\n")
    return digest.hexdigest()


def look_digest(cfg: CfgNode) -> str:
    """Of the keys that decide what a view of an image shows."""
    values = {}
    for name in _VIEWED:
        node: Any = cfg
        for part in name.split("."):
            node = node[part]
        values[name] = node
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
