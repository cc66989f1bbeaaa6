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

from .mapper import SemSegMapper

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
        start: first position of the stream, over all processes; may be set until iteration begins.
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
        position, epoch = self.start + self.rank, -1
        order: np.ndarray = np.empty(0)
        while True:
            if position // self.size != epoch:
                epoch = position // self.size
                order = np.random.RandomState(_seed_words(self.seed, epoch)).permutation(self.size)
            yield position, int(order[position % self.size])
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


def leave_signals(worker: int = 0) -> None:
    """For a worker process: SIGTERM and Ctrl-C are the main process's, which still needs its batches.

    Who stops a run often signals all its processes. Workers end when the main process says so or is gone.

    Args:
        worker: its number, given by the DataLoader.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _start_method(workers: int) -> str | None:
    # One of several training processes was spawned and would spawn its workers, which import everything anew.
    return "fork" if workers and sys.platform == "linux" else None


def build_train_loader(cfg: CfgNode, start_position: int = 0, mapper: Mapper | None = None) -> DataLoader:
    """The endless training loader; each batch is a list of dicts, this process's share of the total.

    Building is cheap and starts no worker: iteration does.

    Args:
        cfg: reads SEED, DATASETS.TRAIN, SOLVER.IMS_PER_BATCH, DATALOADER.NUM_WORKERS and the mapper's keys.
        start_position: number of samples already consumed by all processes together: a resumed run passes
            batches drawn so far times IMS_PER_BATCH. ``loader.sampler.start`` may also be set later.
        mapper: in place of :class:`SemSegMapper`.

    Raises:
        ValueError: IMS_PER_BATCH is not divisible by the number of processes.
    """
    world_size = comm.get_world_size()
    batch_size, rest = divmod(cfg.SOLVER.IMS_PER_BATCH, world_size)
    if rest or batch_size < 1:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH ({cfg.SOLVER.IMS_PER_BATCH}) must be a multiple of the number of "
            f"processes ({world_size})."
        )
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    records = get_detection_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=False)
    mapper = mapper or SemSegMapper(cfg, is_train=True)
    return DataLoader(
        PositionDataset(DatasetFromList(records, copy=False), mapper, seed),
        batch_size=batch_size,
        sampler=PositionSampler(len(records), seed, start_position),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=trivial_batch_collator,
        worker_init_fn=leave_signals,
        multiprocessing_context=_start_method(cfg.DATALOADER.NUM_WORKERS),
        generator=torch.Generator(),  # else each iter() would draw from the training's generator
    )


def build_test_loader(cfg: CfgNode, dataset_name: str, records: Sequence[dict] | None = None) -> DataLoader:
    """detectron2's test loader over one dataset: whole images, one at a time, split over the processes.

    Args:
        cfg: reads DATALOADER.NUM_WORKERS and the mapper's keys.
        dataset_name: registered.
        records: the part of the dataset to load; default all of it.
    """
    loader = build_detection_test_loader(
        get_detection_dataset_dicts([dataset_name], filter_empty=False) if records is None else list(records),
        mapper=SemSegMapper(cfg, is_train=False),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )
    loader.worker_init_fn = leave_signals
    loader.multiprocessing_context = _start_method(cfg.DATALOADER.NUM_WORKERS)
    loader.generator = torch.Generator()  # as above: an evaluation must not change the training after it
    return loader
