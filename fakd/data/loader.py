"""Data loaders whose batches depend on the seed and the position in training, and on nothing else.

The same batches come out for any number of workers, for one process or many, and after a resume.
"""

import contextlib
import random
import signal
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetFromList,
    build_detection_test_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.build import trivial_batch_collator
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from ..view_cache import ViewCache
from .mapper import SemSegMapper
from .selection import labelled_indices, labelled_records, unlabelled_count, unlabelled_records

Mapper = Callable[[dict], dict]


def _seed_words(*key: int) -> np.ndarray:
    # SeedSequence mixes the numbers well: neighbouring seeds and positions share nothing.
    return np.random.SeedSequence(key).generate_state(4)


class PositionSampler(Sampler):
    """Endless shuffled epochs, as (position, index) pairs from a chosen position on.

    Position p of the stream is entry ``p % size`` of the shuffle number ``p // size``. Process ``rank`` of
    ``world_size`` takes every ``world_size``-th position, so that together they take what one would.

    Args:
        size: number of samples in the dataset.
        seed: of the shuffles.
        start: first position of the stream, over all processes.
        rank: this process; default detectron2's.
        world_size: number of processes; default detectron2's.
    """

    def __init__(
        self, size: int, seed: int, start: int = 0, rank: int | None = None, world_size: int | None = None
    ) -> None:
        if size <= 0:
            raise ValueError(f"PositionSampler needs at least one sample, got size={size}.")
        self.size, self.seed, self.start = size, seed, start
        self.rank = comm.get_rank() if rank is None else rank
        self.world_size = comm.get_world_size() if world_size is None else world_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        position, shuffles = self.start + self.rank, _Shuffles(self.size, self.seed)
        while True:
            yield position, shuffles[position]
            position += self.world_size


class _Shuffles:
    """Entry p of an endless row of shuffles of ``size`` numbers, each drawn from the key and its place."""

    def __init__(self, size: int, *key: int) -> None:
        self._size, self._key, self._epoch = size, key, -1
        self._order: np.ndarray = np.empty(0)

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position, self._size)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.RandomState(_seed_words(*self._key, epoch)).permutation(self._size)
        return int(self._order[place])


class MixedSampler(PositionSampler):
    """Batches of labelled and unlabelled samples in a fixed proportion, each kind shuffled by itself.

    The first ``size`` indices are labelled, the next ``unlabelled_size`` are not. Which samples a batch
    holds, and with which random numbers, depends on seed and position alone; every process, and every part of
    a batch that is computed at a time, gets its even share of both kinds.

    Args:
        size: number of labelled samples; may be 0 if all of a batch is unlabelled.
        unlabelled_size: number of the others.
        batch: number of samples of a batch, over all processes.
        unlabelled: how many of these are unlabelled, at least one.
        seed, start, rank, world_size: see :class:`PositionSampler`.
        parts: that a process computes its share of a batch in.
    """

    def __init__(
        self,
        size: int,
        unlabelled_size: int,
        batch: int,
        unlabelled: int,
        seed: int,
        start: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        parts: int = 1,
    ) -> None:
        super().__init__(size + unlabelled_size, seed, start, rank, world_size)
        self.labelled_size, self.batch, self.labelled = size, batch, batch - unlabelled
        per_part = max(1, batch // self.world_size // parts)
        # The first slot of every part of every process, then the second of each: labelled until there are
        # enough.
        turns = sorted(range(batch), key=lambda slot: (slot // self.world_size % per_part, slot))
        self._place = dict(zip(sorted(turns[: self.labelled]), range(batch), strict=False))
        self._place |= zip(sorted(turns[self.labelled :]), range(self.labelled, batch), strict=True)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        labelled = _Shuffles(self.labelled_size, self.seed)
        unlabelled = _Shuffles(self.size - self.labelled_size, self.seed, 1)
        position = self.start + self.rank
        while True:
            number, slot = divmod(position, self.batch)
            place = self._place[slot]
            if place < self.labelled:
                index = labelled[number * self.labelled + place]
            else:
                index = unlabelled[number * (self.batch - self.labelled) + place - self.labelled]
                index += self.labelled_size
            yield number * self.batch + place, index
            position += self.world_size


@contextlib.contextmanager
def _seeded(*key: int) -> Iterator[None]:
    """Seeds Python's and NumPy's global generators for the block and restores them afterwards.

    Restoring matters without workers, where the block runs in the training process.
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()
    words = _seed_words(*key)
    np.random.seed(words)
    random.seed(words.tobytes())
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


class PositionDataset(Dataset):
    """Maps the samples of ``dataset`` with random numbers that depend on seed and position alone.

    Args:
        dataset: list-like of dataset dicts.
        mapper: callable on a dataset dict.
        seed: of the augmentations.
    """

    def __init__(self, dataset: Sequence[dict], mapper: Mapper, seed: int) -> None:
        self.dataset, self.mapper, self.seed = dataset, mapper, seed

    def __getitem__(self, item: tuple[int, int]) -> dict:
        position, index = item
        with _seeded(self.seed, position):
            return self.mapper(self.dataset[index])


class ViewDataset(Dataset):
    """Fixed views of the samples of ``dataset``: row r is view ``r % views`` of sample ``r // views``.

    Args:
        dataset: list-like of dataset dicts.
        mapper: callable on a dataset dict.
        views: of each sample.
        seed: of the augmentations.
    """

    def __init__(self, dataset: Sequence[dict], mapper: Mapper, views: int, seed: int) -> None:
        self.dataset, self.mapper, self.views, self.seed = dataset, mapper, views, seed

    def __getitem__(self, row: int) -> dict:
        index, view = divmod(row, self.views)
        with _seeded(self.seed, index, view):
            return {**self.mapper(self.dataset[index]), "view": row}


class DrawnViews(Dataset):
    """Shows one of the views of a sample, which depends on seed and position alone.

    Args:
        views: of all samples.
        seed: of the choice.
    """

    def __init__(self, views: ViewDataset, seed: int) -> None:
        self.views, self.seed = views, seed

    def __getitem__(self, item: tuple[int, int]) -> dict:
        position, index = item
        view = int(_seed_words(self.seed, position)[0]) % self.views.views
        return self.views[index * self.views.views + view]


def leave_signals(worker: int = 0) -> None:
    """For a worker process: SIGTERM and Ctrl-C are the main process's, which still needs its batches.

    A signal that stops a run often reaches all its processes. Workers end when the main process tells
    them or is gone.

    Args:
        worker: its number, given by the DataLoader.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _start_method(workers: int) -> str | None:
    # One of several training processes was spawned and would spawn its workers, which import everything anew.
    return "fork" if workers and sys.platform == "linux" else None


def build_train_loader(cfg: CfgNode, start_position: int = 0) -> DataLoader:
    """The endless training loader; each batch is a list of dicts, this process's share of the total.

    Building is cheap and starts no worker: iteration does.

    Args:
        cfg: reads SEED, DATASETS, SOLVER.IMS_PER_BATCH and ACCUMULATE, DATALOADER and the mapper's keys.
        start_position: number of samples already consumed by all processes together: a resumed run passes
            batches drawn so far times IMS_PER_BATCH.

    Raises:
        ValueError: IMS_PER_BATCH is not divisible by the number of processes, a training set has no labels,
            there is no image of a kind that a batch is to hold, or KD.TEACHER.CACHE is of something else.
    """
    world_size = comm.get_world_size()
    batch_size, rest = divmod(cfg.SOLVER.IMS_PER_BATCH, world_size)
    if rest or batch_size < 1:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH ({cfg.SOLVER.IMS_PER_BATCH}) must be a multiple of the number of "
            f"processes ({world_size})."
        )
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    records = labelled_records(cfg)
    others = unlabelled_records(cfg, records)
    unlabelled = unlabelled_count(cfg, len(others))
    if unlabelled:
        sizes = len(records), len(others), cfg.SOLVER.IMS_PER_BATCH, unlabelled
        sampler: PositionSampler = MixedSampler(*sizes, seed, start_position, parts=cfg.SOLVER.ACCUMULATE)
    else:
        sampler = PositionSampler(len(records), seed, start_position)
    mapper = SemSegMapper(cfg, is_train=True)
    shown = DatasetFromList([*records, *others], copy=False)
    dataset: Dataset = PositionDataset(shown, mapper, seed)
    if cfg.KD.TEACHER.CACHE:
        cache = ViewCache(cfg.KD.TEACHER.CACHE)
        cache.check(cfg, [*records, *others])
        dataset = DrawnViews(ViewDataset(shown, mapper, cache.info.views, cache.info.seed), seed)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=trivial_batch_collator,
        worker_init_fn=leave_signals,
        multiprocessing_context=_start_method(cfg.DATALOADER.NUM_WORKERS),
        generator=torch.Generator(),  # else each iter() would draw from the training's generator
    )


def training_records(cfg: CfgNode) -> list[dict]:
    """The dataset dicts that are trained on, those with labels first."""
    records = labelled_records(cfg)
    return [*records, *unlabelled_records(cfg, records)]


def build_view_loader(
    cfg: CfgNode, records: Sequence[dict], views: int, seed: int, rows: Sequence[int]
) -> DataLoader:
    """Batches of fixed views, in the order of their rows.

    Args:
        cfg: reads SOLVER.IMS_PER_BATCH, DATALOADER.NUM_WORKERS and the mapper's keys.
        records: from :func:`training_records`.
        views, seed: see :class:`ViewDataset`.
        rows: of the views to load.
    """
    return DataLoader(
        ViewDataset(records, SemSegMapper(cfg, is_train=True), views, seed),
        batch_size=cfg.SOLVER.IMS_PER_BATCH,
        sampler=rows,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=trivial_batch_collator,
        worker_init_fn=leave_signals,
        multiprocessing_context=_start_method(cfg.DATALOADER.NUM_WORKERS),
        generator=torch.Generator(),
    )


def build_test_loader(cfg: CfgNode, dataset_name: str, records: Sequence[dict] | None = None) -> DataLoader:
    """detectron2's test loader over one dataset: whole images, one at a time, split over the processes.

    Args:
        cfg: reads DATASETS, DATALOADER.NUM_WORKERS and the mapper's keys.
        dataset_name: registered.
        records: the part of the dataset to load; default all of it, of a training set the pictures that
            DATASETS.LABEL_SHARE leaves their labels.
    """
    if records is None:
        records = get_detection_dataset_dicts([dataset_name], filter_empty=False)
        if dataset_name in cfg.DATASETS.TRAIN:
            records = [records[i] for i in labelled_indices(len(records), cfg)]
    loader = build_detection_test_loader(
        list(records),
        mapper=SemSegMapper(cfg, is_train=False),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )
    loader.worker_init_fn = leave_signals
    loader.multiprocessing_context = _start_method(cfg.DATALOADER.NUM_WORKERS)
    loader.generator = torch.Generator()  # as above: an evaluation must not change the training after it
    return loader
