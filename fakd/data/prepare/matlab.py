"""Label maps in MATLAB's files, as Pascal Context and SBD ship them."""

import numpy as np


def read_map(path: str, *fields: str) -> np.ndarray:
    """The integer array at ``fields`` of a .mat file.

    Raises:
        ValueError: the file cannot be read or lacks a field; the message names it.
        ModuleNotFoundError: SciPy is not installed.
    """
    try:
        from scipy.io import loadmat
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Reading .mat files needs SciPy: python -m pip install scipy") from error
    try:
        found = loadmat(path, squeeze_me=True, struct_as_record=True)
        for field in fields:
            found = found[field]
            if found.dtype == object and not found.shape:  # a struct's field is wrapped in an array
                found = found.item()
    except (OSError, ValueError, KeyError, IndexError, TypeError, NotImplementedError) as error:
        raise ValueError(f"Cannot read {'.'.join(fields)} of '{path}': {error!r}") from error
    return np.asarray(found).astype(np.int64)
