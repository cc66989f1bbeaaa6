"""The common part of all preparations: resume, parallel processes, progress and whole files."""

import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets.utils import download_url, extract_archive
from tqdm import tqdm

from fakd.files import atomic_write, file_digest

#: Makes one file from another: (source, target).
Convert = Callable[[str, str], None]


def convert_all(jobs: Sequence[tuple[str, str]], convert: Convert, what: str, workers: int = 0) -> int:
    """Makes the targets that do not exist yet, each of them whole or not at all.

    Args:
        jobs: (source, target) of every file.
        convert: picklable.
        what: word beside the progress bar.
        workers: processes; 0 takes as many as there are processors.

    Returns:
        How many files were made now.

    Raises:
        ValueError: a source is not as expected; the message names it. What is done stays done.
    """
    left = [(source, target) for source, target in jobs if not os.path.exists(target)]
    for folder in {os.path.dirname(target) for _, target in left}:
        os.makedirs(folder, exist_ok=True)
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        futures = [pool.submit(convert, *job) for job in left]
        try:
            for future in tqdm(
                as_completed(futures), what, len(jobs), unit="file", initial=len(jobs) - len(left)
            ):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return len(left)


def write_label(label: np.ndarray, path: str) -> None:
    """Writes class ids of one byte as a grey png."""
    with atomic_write(path) as file:
        Image.fromarray(label.astype(np.uint8)).save(file, format="png")


def write_stems(stems: Sequence[str], path: str | Path) -> None:
    """Writes a split file, one name a line."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with atomic_write(path, "w") as file:
        file.writelines(f"{stem}\n" for stem in stems)


def need(path: str | Path, remedy: str) -> Path:
    """The path, which must exist.

    Raises:
        FileNotFoundError: it does not; the message says what to fetch.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"No '{Path(path).absolute()}'. {remedy}")
    return Path(path)


def fetch(url: str, folder: str | Path, checksum: str = "") -> None:
    """Downloads an archive into a folder and unpacks it there; one that is complete is not fetched again.

    Args:
        url: of the archive.
        folder: to unpack it in, where the archive stays too.
        checksum: "<algorithm>:<hexadecimal digits>", with an algorithm of hashlib; "" where none is known.

    Raises:
        ValueError: what came is not the archive that was published, or only a part of it.
        OSError: the site cannot be reached.
    """
    archive = Path(folder) / url.rpartition("/")[2]
    if not archive.exists():
        partial = archive.with_name(f"{archive.name}.partial")
        partial.unlink(missing_ok=True)
        download_url(url, str(folder), partial.name)
        os.replace(partial, archive)
    remedy = "Delete it and call this again, or fetch it by other means."
    algorithm, _, expected = checksum.partition(":")
    if expected and (found := file_digest(archive, algorithm)) != expected:
        raise ValueError(
            f"'{archive}' is not what was published: its {algorithm} is {found}, not {expected}. {remedy}"
        )
    try:
        extract_archive(str(archive), str(folder))
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        raise ValueError(f"Cannot unpack '{archive}': {error}. {remedy}") from error
