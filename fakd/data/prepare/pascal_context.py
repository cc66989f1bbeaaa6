"""Pascal Context: the 59 frequent classes of the 459, everything else background."""

from pathlib import Path

import numpy as np

from ..datasets.folders import read_stems
from ..datasets.pascal_context import NAMES, SPLITS
from .common import convert_all, fetch, need, write_label, write_stems
from .matlab import read_map

VOC_URL = "http://host.robots.ox.ac.uk/pascal/VOC/voc2010/VOCtrainval_03-May-2010.tar"
# As torchvision records it, datasets/voc.py.
VOC_MD5 = "md5:da459979d0c395079b5c75ee67908abb"
# No checksum of the labels is published: unpacking checks the archive's own, and every
# label's ids are checked.
LABELS_URL = "https://cs.stanford.edu/~roozbeh/pascal-context/trainval.tar.gz"
REMEDY = (
    f"Fetch {VOC_URL} (1.3 GB) and unpack it, which makes VOCdevkit/VOC2010; fetch {LABELS_URL} (30 MB) and "
    "unpack it in VOCdevkit/VOC2010, which makes trainval/*.mat. Or call this again with --download."
)

_CLASSES = np.zeros(460, np.uint8)
_CLASSES[list(NAMES.values())] = range(1, 60)


def convert_pascal_context(root: Path, download: bool = False, workers: int = 0) -> None:
    """Writes ``SegmentationClassContext`` and ``ImageSets/SegmentationContext`` in ``VOCdevkit/VOC2010``.

    Raises:
        FileNotFoundError, ValueError: a folder or file is missing, or the labels are others; the message
            names it.
    """
    folder = root / "VOCdevkit" / "VOC2010"
    if download:
        fetch(VOC_URL, root, VOC_MD5)
        fetch(LABELS_URL, folder)
    _check_names(folder / "labels.txt")
    jobs = []
    for split in SPLITS:
        stems = read_stems(str(folder / "ImageSets" / "Main" / f"{split}.txt"), REMEDY)
        write_stems(stems, folder / "ImageSets" / "SegmentationContext" / f"{split}.txt")
        for stem in stems:
            source = need(folder / "trainval" / f"{stem}.mat", REMEDY)
            jobs.append((str(source), str(folder / "SegmentationClassContext" / f"{stem}.png")))
    convert_all(jobs, convert_label, "Pascal Context", workers)


def _check_names(path: Path) -> None:
    """The archive's list of names, if it was kept, must give the classes the ids they have here."""
    if not path.exists():
        return
    names = dict(line.split(": ", 1) for line in path.read_text().splitlines() if ": " in line)
    for name, index in NAMES.items():
        if names.get(str(index), "").strip() != name:
            raise ValueError(f"'{path}' calls label {index} '{names.get(str(index))}', not '{name}'.")


def convert_label(source: str, target: str) -> None:
    """Writes one label with 1 to 59 for the classes and 0 for all else, from a MATLAB file of 459 ids.

    Raises:
        ValueError: an id is above 459.
    """
    label = read_map(source, "LabelMap")
    if label.min() < 0 or label.max() >= len(_CLASSES):
        raise ValueError(f"'{source}' holds ids from {label.min()} to {label.max()}, expected 0 to 459.")
    write_label(_CLASSES[label], target)
