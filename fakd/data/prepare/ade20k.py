"""ADE20K: label 0, "other", becomes void, and the 150 classes start from 0."""

from pathlib import Path

from ..datasets.ade20k import FOLDERS
from ..labels import read_label
from .common import convert_all, fetch, need, write_label

URL = "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip"
# As TensorFlow Datasets records it, url_checksums/ade20k.txt.
SHA256 = "sha256:7ff1be44964418441f542a7cc1e1a650e7dc0fc275f5d23252bc9bbdbc977b29"
REMEDY = f"Fetch {URL} (0.9 GB) and unpack it there, or call this again with --download."


def convert_ade20k(root: Path, download: bool = False, workers: int = 0) -> None:
    """Writes ``ADEChallengeData2016/annotations_detectron2`` beside ``annotations``.

    Raises:
        FileNotFoundError, ValueError: a folder is missing, or a label is not as shipped; the message
            names it.
    """
    if download:
        fetch(URL, root, SHA256)
    folder = root / "ADEChallengeData2016"
    jobs = []
    for part in FOLDERS.values():
        need(folder / "images" / part, REMEDY)
        for source in sorted(need(folder / "annotations" / part, REMEDY).glob("*.png")):
            jobs.append((str(source), str(folder / "annotations_detectron2" / part / source.name)))
    convert_all(jobs, convert_label, "ADE20K", workers)


def convert_label(source: str, target: str) -> None:
    """Writes one label with void, 0 in the original, as 255 and every class one lower.

    Raises:
        ValueError: an id is above 150.
    """
    label = read_label(source)
    if label.max() > 150:
        raise ValueError(f"The label file '{source}' holds the id {label.max()}, but ADE20K's end at 150.")
    write_label((label - 1) % 256, target)  # 0 becomes 255
