import random
from itertools import islice

import numpy as np
import pytest
import torch

from fakd.data import build_test_loader, build_train_loader
from fakd.data.loader import PositionSampler


def _batches(cfg, number, start=0):
    return list(islice(build_train_loader(cfg, start_position=start), number))


def _assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert [sample["image_id"] for sample in batch] == [sample["image_id"] for sample in other]
        for sample, twin in zip(batch, other, strict=True):
            assert torch.equal(sample["image"], twin["image"])
            assert torch.equal(sample["sem_seg"], twin["sem_seg"])


def _random_states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def test_batches_do_not_depend_on_workers_or_global_seeds(cfg, dataset):
    torch.manual_seed(1)
    np.random.seed(1)
    expected = _batches(cfg, 5)
    torch.manual_seed(2)
    np.random.seed(2)
    _assert_same(_batches(cfg, 5), expected)
    cfg.DATALOADER.NUM_WORKERS = 2
    _assert_same(_batches(cfg, 5), expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_leaves_the_random_states_alone(cfg, dataset, workers):
    cfg.DATALOADER.NUM_WORKERS = workers
    before = _random_states()
    _batches(cfg, 2)
    list(islice(build_test_loader(cfg, "small_test"), 2))
    assert _random_states() == before


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_loader_goes_on_where_the_first_stopped(cfg, dataset, workers):
    expected = _batches(cfg, 5)
    cfg.DATALOADER.NUM_WORKERS = workers
    _assert_same(_batches(cfg, 3, start=2 * cfg.SOLVER.IMS_PER_BATCH), expected[2:])
    loader = build_train_loader(cfg)
    loader.sampler.start = 2 * cfg.SOLVER.IMS_PER_BATCH
    _assert_same(list(islice(loader, 3)), expected[2:])


def test_another_seed_gives_other_orders_and_other_crops(cfg, dataset):
    first, cfg.SEED = _batches(cfg, 7), 1
    second = _batches(cfg, 7)
    ids = [[sample["image_id"] for batch in batches for sample in batch] for batches in (first, second)]
    assert ids[0] != ids[1]
    pixels = [
        {sample["image_id"]: sample["image"] for batch in batches for sample in batch}
        for batches in (first, second)
    ]
    assert sum(torch.equal(pixels[0][key], pixels[1][key]) for key in pixels[0]) == 0


def test_an_image_is_augmented_anew_in_each_epoch(cfg, dataset):
    samples = [sample for batch in _batches(cfg, 7) for sample in batch]
    seen = [sample["image"] for sample in samples if sample["image_id"] == "3"]
    assert len(seen) == 4
    assert not any(torch.equal(seen[0], other) for other in seen[1:])


def test_each_epoch_is_a_fresh_shuffle_of_all_samples():
    stream = list(islice(PositionSampler(50, seed=0, rank=0, world_size=1), 150))
    assert [position for position, _ in stream] == list(range(150))
    epochs = np.array([index for _, index in stream]).reshape(3, 50)
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3


def test_neighbouring_seeds_share_no_shuffle():
    shuffles = set()
    for seed in range(3):
        stream = [index for _, index in islice(PositionSampler(50, seed, rank=0, world_size=1), 150)]
        shuffles |= {tuple(stream[i : i + 50]) for i in range(0, 150, 50)}
    assert len(shuffles) == 9


@pytest.mark.parametrize("start", [0, 12])
def test_processes_together_take_what_one_would(start):
    whole = list(islice(PositionSampler(7, 0, start, rank=0, world_size=1), 24))
    parts = [list(islice(PositionSampler(7, 0, start, rank=rank, world_size=3), 8)) for rank in range(3)]
    per_process = 2
    for step in range(4):
        batch = [pair for part in parts for pair in part[step * per_process : (step + 1) * per_process]]
        assert sorted(batch) == whole[step * 6 : (step + 1) * 6]


def test_the_batch_is_shared_between_processes(cfg, dataset, monkeypatch):
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    assert [len(batch) for batch in _batches(cfg, 2)] == [2, 2]
    cfg.SOLVER.IMS_PER_BATCH = 5
    with pytest.raises(ValueError, match=r"IMS_PER_BATCH \(5\).*number of processes \(2\)"):
        build_train_loader(cfg)


def test_the_test_loader_gives_every_image_once_and_whole(cfg, dataset):
    samples = [sample for batch in build_test_loader(cfg, "small_test") for sample in batch]
    assert [sample["image_id"] for sample in samples] == [str(i) for i in range(7)]
    assert {tuple(sample["image"].shape) for sample in samples} == {(3, 96, 128)}
    assert "sem_seg" not in samples[0]
