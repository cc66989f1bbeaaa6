"""Which pictures are trained on with their labels, which without, and which stand for a whole set."""

import logging
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts

logger = logging.getLogger(__name__)

Record = TypeVar("Record")


def labelled_records(cfg: CfgNode) -> list[dict]:
    """The dataset dicts of DATASETS.TRAIN whose labels are used, DATASETS.LABEL_SHARE of each set.

    Raises:
        ValueError: a picture of a training set has no label.
    """
    records = []
    for name in cfg.DATASETS.TRAIN:
        found = get_detection_dataset_dicts([name], filter_empty=False)
        if missing := [record for record in found if "sem_seg_file_name" not in record]:
            raise ValueError(
                f"DATASETS.TRAIN names '{name}', in which {len(missing)} of {len(found)} pictures have no "
                f"label, such as '{missing[0]['file_name']}'. Name sets without labels in "
                "DATASETS.UNLABELLED."
            )
        records += [found[i] for i in labelled_indices(len(found), cfg)]
    return records


def labelled_indices(size: int, cfg: CfgNode) -> list[int]:
    """Places of the pictures whose labels are used, among ``size`` in the order of their files.

    The set is cut into DATASETS.LABEL_BLOCKS equal parts (0: one per picture that is used), and the first
    pictures of every part are taken, in total DATASETS.LABEL_SHARE of the set, at least one. Parts can
    differ by a picture: what one is too small to give, the next one gives.
    """
    share, blocks = cfg.DATASETS.LABEL_SHARE, cfg.DATASETS.LABEL_BLOCKS
    total = max(1, round(share * size))
    blocks = min(blocks or total, total)
    chosen: list[int] = []
    for block in range(blocks):
        start, end = block * size // blocks, (block + 1) * size // blocks
        due = (block + 1) * total // blocks - len(chosen)
        chosen += range(start, min(start + due, end))
    return chosen


def unlabelled_records(cfg: CfgNode, labelled: list[dict]) -> list[dict]:
    """The dataset dicts of DATASETS.UNLABELLED without their labels, less the pictures of ``labelled``."""
    if not cfg.DATASETS.UNLABELLED:
        return []
    # Where all of a batch is unlabelled, no picture counts as labelled.
    used = {record["file_name"] for record in labelled} if cfg.DATALOADER.UNLABELLED_SHARE < 1 else set()
    found = get_detection_dataset_dicts(cfg.DATASETS.UNLABELLED, filter_empty=False)
    return [
        {key: value for key, value in record.items() if key != "sem_seg_file_name"}
        for record in found
        if record["file_name"] not in used
    ]


def unlabelled_count(cfg: CfgNode, available: int) -> int:
    """How many pictures of a batch are unlabelled.

    Args:
        cfg: reads DATALOADER.UNLABELLED_SHARE and SOLVER.IMS_PER_BATCH.
        available: unlabelled pictures there are.

    Raises:
        ValueError: the batch would hold none of one kind, though that is asked for.
    """
    share, batch = cfg.DATALOADER.UNLABELLED_SHARE, cfg.SOLVER.IMS_PER_BATCH
    if not cfg.DATASETS.UNLABELLED:
        return 0
    if not available:
        logger.warning(
            "DATASETS.UNLABELLED (%s) holds no picture that is not labelled already: the training is on "
            "labelled pictures alone.",
            ", ".join(cfg.DATASETS.UNLABELLED),
        )
        return 0
    count = round(share * batch)
    if (count == 0 and share > 0) or (count == batch and share < 1):
        kind = "unlabelled" if count == 0 else "labelled"
        raise ValueError(
            f"DATALOADER.UNLABELLED_SHARE {share} of SOLVER.IMS_PER_BATCH {batch} leaves a batch no {kind} "
            "picture: raise SOLVER.IMS_PER_BATCH, or set the share to 0 or 1 if that is meant."
        )
    return count


def evenly_spaced(records: Sequence[Record], count: int) -> list[Record]:
    """At most ``count`` records, spread over the whole set: neighbours in a video show the same."""
    chosen = np.linspace(0, len(records) - 1, min(count, len(records))).round().astype(int)
    return [records[i] for i in chosen]
