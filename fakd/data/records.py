"""Evenly spaced images of a dataset."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Record = TypeVar("Record")


def evenly_spaced(records: Sequence[Record], count: int) -> list[Record]:
    """At most ``count`` records, spread over the whole set: neighbours in a video show the same."""
    chosen = np.linspace(0, len(records) - 1, min(count, len(records))).round().astype(int)
    return [records[i] for i in chosen]
