"""Pascal VOC 2012: the training labels of VOC and of SBD in one folder, and the list of the 10582 images."""

from pathlib import Path

import numpy as np

from ..datasets.colours import colour_map
from ..datasets.folders import read_stems
from ..datasets.voc2012 import VOID
from ..images import load, open_image
from .common import convert_all, fetch, need, write_label, write_stems
from .matlab import read_map

VOC_URL = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"
# Both as torchvision records them, datasets/voc.py and datasets/sbd.py.
VOC_MD5 = "md5:6cd6e144f989b92b3379bac3b3de84fd"
SBD_URL = (
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz"
)
SBD_MD5 = "md5:82b4d87ceb2ed10f6038a1cba92111cb"
REMEDY = (
    f"Fetch {VOC_URL} (1.9 GB) and unpack it, which makes VOCdevkit/VOC2012; fetch {SBD_URL} (1.4 GB) and "
    "unpack it beside VOCdevkit, which makes benchmark_RELEASE. Or call this again with --download."
)


def convert_voc2012(root: Path, download: bool = False, workers: int = 0) -> None:
    """Writes ``SegmentationClassAug`` and ``ImageSets/Segmentation/trainaug.txt`` in ``VOCdevkit/VOC2012``.

    Where both have an image, VOC's label counts. Images of VOC's validation set are left out.

    Raises:
        FileNotFoundError, ValueError: a folder or file is missing, or a label is not as shipped; the message
            names it.
    """
    if download:
        fetch(VOC_URL, root, VOC_MD5)
        fetch(SBD_URL, root, SBD_MD5)
    folder, sbd = root / "VOCdevkit" / "VOC2012", root / "benchmark_RELEASE" / "dataset"
    lists = folder / "ImageSets" / "Segmentation"
    train, val = (read_stems(str(lists / f"{split}.txt"), REMEDY) for split in ("train", "val"))
    added = {stem for split in ("train", "val") for stem in read_stems(str(sbd / f"{split}.txt"), REMEDY)}
    added -= {*train, *val}
    sources = {stem: need(folder / "SegmentationClass" / f"{stem}.png", REMEDY) for stem in train}
    sources |= {stem: need(sbd / "cls" / f"{stem}.mat", REMEDY) for stem in added}
    target = folder / "SegmentationClassAug"
    jobs = [(str(source), str(target / f"{stem}.png")) for stem, source in sorted(sources.items())]
    convert_all(jobs, convert_label, "Pascal VOC 2012", workers)
    write_stems(sorted(sources), lists / "trainaug.txt")  # last: the list means that all files are there


def convert_label(source: str, target: str) -> None:
    """Writes one label of ids, from a coloured picture or SBD's MATLAB file.

    Raises:
        ValueError: an id is above 20 and not void.
    """
    label = read_map(source, "GTcls", "Segmentation") if source.endswith(".mat") else read_colours(source)
    unknown = (label > 20) & (label != VOID)
    if unknown.any():
        raise ValueError(
            f"'{source}' holds the ids {np.unique(label[unknown])[:10].tolist()}, expected 0 to 20."
        )
    write_label(label, target)


def read_colours(path: str) -> np.ndarray:
    """(H, W) class ids of a VOC label, whether it still has its palette or was saved as colours.

    Raises:
        ValueError: the file cannot be read, or holds a colour that is none of VOC's.
    """
    with open_image(path, "label file") as picture:
        if picture.mode in ("P", "L"):
            return np.array(load(picture))
        colours = np.array(load(picture).convert("RGB")).astype(np.int64)
    code = (colours[..., 0] << 16) + (colours[..., 1] << 8) + colours[..., 2]
    known = {(r << 16) + (g << 8) + b: i for i, (r, g, b) in enumerate(colour_map(21))}
    known[(224 << 16) + (224 << 8) + 192] = VOID  # the border around objects
    values, places = np.unique(code, return_inverse=True)
    if strange := [f"#{value:06x}" for value in values.tolist() if value not in known]:
        raise ValueError(f"The label file '{path}' holds the colours {strange[:5]}, which VOC does not use.")
    return np.array([known[value] for value in values.tolist()])[places].reshape(code.shape)
