"""Images a second that one processor loads, beside detectron2's own mapper: ``python -m benchmarks.loader``.

Both read the same files and augment alike: a random scale, a crop, a flip. detectron2's mapper decodes and
resizes whole images and crops then; this project's draws the crop first and decodes and resizes what it
needs. The goal is a ratio of 1.5. The floor of both is reading the two files into memory, at full size;
"decoded" is this project's with DATALOADER.DECODED.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from PIL import Image

from fakd.data import RandomScale, SemSegMapper
from fakd.data.augmentations import Pad, RandomScaledCrop
from fakd.data.datasets.folders import make_record
from fakd.data.decoded import DecodedFiles, write_decoded

ROUNDS = 5
GOAL = 1.5

#: Shape of each dataset's images: (height, width), suffix, base size, crop.
SHAPES = {
    "ADE20K": ((512, 683), "jpg", (2048, 512), (512, 512)),
    "Cityscapes": ((1024, 2048), "png", (2048, 1024), (512, 1024)),
    "COCO-Stuff": ((480, 640), "jpg", (2048, 512), (512, 512)),
    "large photographs": ((3000, 4000), "jpg", (2048, 512), (512, 512)),
}


def write_pair(folder: Path, size: tuple[int, int], suffix: str) -> dict:
    """An image about as hard to decode as a photograph, and a label of smooth regions."""
    height, width = size
    random = np.random.RandomState(0)
    coarse = random.randint(0, 256, (height // 8 + 1, width // 8 + 1, 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    noisy = (smooth + random.randint(-8, 9, smooth.shape)).clip(0, 255).astype(np.uint8)
    regions = random.randint(0, 19, (height // 64 + 1, width // 64 + 1)).astype(np.uint8)
    paths = folder / f"image.{suffix}", folder / "label.png"
    Image.fromarray(noisy).save(paths[0])
    Image.fromarray(regions).resize((width, height), Image.Resampling.NEAREST).save(paths[1])
    return make_record(str(paths[0]), str(paths[1]), "0")


def read(record: dict) -> None:
    """Decodes both files."""
    for name in ("file_name", "sem_seg_file_name"):
        with Image.open(record[name]) as picture:
            picture.load()


def mappers(
    base: tuple[int, int], crop: tuple[int, int], decoded: DecodedFiles
) -> dict[str, Callable[[dict], object]]:
    """detectron2's and this project's, with the same augmentation, and the floor of both."""

    def ours(where: DecodedFiles | None) -> SemSegMapper:
        return SemSegMapper(
            augmentations=[T.RandomFlip(), Pad(crop, 116, 255)],
            crop=RandomScaledCrop(scale, crop),
            image_format="RGB",
            num_classes=19,
            ignore_label=255,
            ignore_value=255,
            id_map=None,
            is_train=True,
            decoded=where,
        )

    scale, pad = RandomScale(0.5, 2.0, base), T.FixedSizeCrop(crop, pad_value=116, seg_pad_value=255)
    theirs = [scale, T.RandomCrop("absolute", crop), T.RandomFlip(), pad]
    return {
        "detectron2": DatasetMapper(True, augmentations=theirs, image_format="RGB"),
        "fakd": ours(None),
        "decoded": ours(decoded),
        "floor": read,
    }


def rates(
    record: dict, loaders: dict[str, Callable[[dict], object]], rounds: int, images: int
) -> dict[str, float]:
    """Images per second of processor time; the loaders take turns, with the same random numbers."""
    seconds: dict[str, list[float]] = {name: [] for name in loaders}
    for turn in range(rounds):
        for name, mapper in loaders.items():
            np.random.seed(turn)
            start = time.process_time()
            for _ in range(images):
                mapper(record)
            seconds[name].append((time.process_time() - start) / images)
    return {name: 1 / statistics.median(times) for name, times in seconds.items()}


def main(rounds: int = ROUNDS, images: int = 12) -> None:
    """Prints the rates, their ratio, and the processors for a GPU that takes 16 images in 0.1 or 0.5 s."""
    print("| shape | floor, images/s | detectron2 | fakd | ratio | decoded | processors for 0.1 s | 0.5 s |")
    print("|---|---|---|---|---|---|---|---|")
    cv2.setNumThreads(1)
    for name, (size, suffix, base, crop) in SHAPES.items():
        with tempfile.TemporaryDirectory() as folder:
            record = write_pair(Path(folder), size, suffix)
            write_decoded([record], folder)
            found = rates(record, mappers(base, crop, DecodedFiles(folder)), rounds, images)
        floor, theirs, ours = found["floor"], found["detectron2"], found["fakd"]
        verdict = "met" if ours / theirs >= GOAL else "MISSED"
        print(
            f"| {name} | {floor:.1f} | {theirs:.1f} | {ours:.1f} | {ours / theirs:.2f} {verdict} "
            f"| {found['decoded']:.1f} | {16 / 0.1 / ours:.1f} | {16 / 0.5 / ours:.1f} |"
        )


if __name__ == "__main__":
    main()
