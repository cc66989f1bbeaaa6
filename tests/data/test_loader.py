import random
from itertools import islice, product

import numpy as np
import pytest
import torch

from fakd.data import build_test_loader, build_train_loader
from fakd.data.loader import MixedSampler, PositionSampler
from fakd.data.selection import labelled_indices, labelled_records


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


# Labelled and unlabelled ---------------------------------------------------------------------------------


def _mixed(number, batch=6, unlabelled=3, **options):
    return list(islice(MixedSampler(4, 9, batch, unlabelled, seed=0, **options), number * batch))


def test_a_mixed_batch_holds_each_kind_in_its_proportion_and_every_sample_once_an_epoch():
    stream = _mixed(12)
    batches = [stream[i : i + 6] for i in range(0, 72, 6)]
    assert all(sum(index >= 4 for _, index in batch) == 3 for batch in batches)
    labelled = [index for _, index in stream if index < 4]
    others = [index for _, index in stream if index >= 4]
    assert all(sorted(labelled[i : i + 4]) == [0, 1, 2, 3] for i in range(0, 36, 4))
    assert all(sorted(others[i : i + 9]) == list(range(4, 13)) for i in range(0, 36, 9))
    assert sorted(position for position, _ in stream) == list(range(72))  # no two share random numbers


@pytest.mark.parametrize(("world_size", "parts"), [(2, 1), (1, 2), (2, 2), (3, 1)])
def test_mixed_batches_hold_the_same_for_any_number_of_processes_and_parts(world_size, parts):
    whole = _mixed(4, 12, 6, rank=0, world_size=1)
    own = 12 // world_size
    streams = [
        list(islice(MixedSampler(4, 9, 12, 6, 0, 0, rank, world_size, parts), 4 * own))
        for rank in range(world_size)
    ]
    for step in range(4):
        shares = [stream[step * own : (step + 1) * own] for stream in streams]
        together = [pair for share in shares for pair in share]
        assert sorted(together) == sorted(whole[step * 12 : (step + 1) * 12])
        for share in shares:
            for part in range(parts):
                found = share[part * own // parts : (part + 1) * own // parts]
                assert abs(len(found) - 2 * sum(index >= 4 for _, index in found)) <= 1


def test_a_mixed_sampler_goes_on_where_another_stopped():
    assert _mixed(5)[12:] == _mixed(3, start=12)


@pytest.fixture
def unlabelled(cfg, dataset):
    """The config, with the same pictures for unlabelled ones."""
    cfg.DATASETS.UNLABELLED, cfg.DATASETS.LABEL_SHARE = ("small_test",), 0.3
    return cfg


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_loader_of_both_kinds_goes_on_where_the_first_stopped(unlabelled, workers):
    expected = _batches(unlabelled, 5)
    unlabelled.DATALOADER.NUM_WORKERS = workers
    _assert_same(_batches(unlabelled, 3, start=2 * unlabelled.SOLVER.IMS_PER_BATCH), expected[2:])


def test_unlabelled_pictures_are_the_others_and_come_without_labels(unlabelled):
    samples = [sample for batch in _batches(unlabelled, 10) for sample in batch]
    with_label = {sample["image_id"] for sample in samples if "unlabelled" not in sample}
    others = {sample["image_id"] for sample in samples if "unlabelled" in sample}
    assert with_label == {"0", "3"} and others == set("12456")
    for sample in samples:
        if "unlabelled" in sample:
            assert (sample["sem_seg"] == 255).all() and sample["unlabelled"].dtype == torch.bool


def test_padding_of_an_unlabelled_picture_is_not_of_it(unlabelled):
    unlabelled.INPUT.SCALE_RANGE, unlabelled.INPUT.CROP.SIZE = (0.5, 0.5), (64, 72)  # of 48 x 64 pixels
    unlabelled.INPUT.RANDOM_FLIP = "none"
    sample = next(x for x in _batches(unlabelled, 1)[0] if "unlabelled" in x)
    assert sample["unlabelled"][:48, :64].all()
    assert not sample["unlabelled"][48:].any() and not sample["unlabelled"][:, 64:].any()


def test_a_share_of_one_needs_no_labelled_picture_and_takes_all(cfg, dataset):
    cfg.DATASETS.TRAIN, cfg.DATASETS.UNLABELLED = (), ("small_test",)
    cfg.DATALOADER.UNLABELLED_SHARE = 1.0
    samples = [sample for batch in _batches(cfg, 7) for sample in batch]
    assert all("unlabelled" in sample for sample in samples)
    assert {sample["image_id"] for sample in samples} == set("0123456")


def test_unlabelled_sets_without_another_picture_are_left_out_with_a_warning(cfg, dataset, caplog):
    expected = _batches(cfg, 2)
    cfg.DATASETS.UNLABELLED = ("small_test",)
    _assert_same(_batches(cfg, 2), expected)
    assert "DATASETS.UNLABELLED (small_test) holds no picture" in caplog.text


@pytest.mark.parametrize(("share", "kind"), [(0.1, "unlabelled"), (0.9, "labelled")])
def test_a_share_that_leaves_a_batch_none_of_a_kind_is_refused(unlabelled, share, kind):
    unlabelled.DATALOADER.UNLABELLED_SHARE = share
    with pytest.raises(ValueError, match=rf"UNLABELLED_SHARE {share} of SOLVER.IMS_PER_BATCH 4.* no {kind}"):
        build_train_loader(unlabelled)


def test_a_training_set_without_labels_is_refused_by_its_name(cfg, dataset, monkeypatch):
    record = {"file_name": "a.png", "height": 1, "width": 1}
    monkeypatch.setattr("fakd.data.selection.get_detection_dataset_dicts", lambda *a, **k: [record])
    with pytest.raises(ValueError, match=r"'small_test'.*1 of 1.*a\.png.*DATASETS.UNLABELLED"):
        build_train_loader(cfg)


@pytest.mark.parametrize(
    ("share", "blocks", "expected"),
    [
        (1.0, 0, list(range(10))),
        (1.0, 1, list(range(10))),
        (0.4, 1, [0, 1, 2, 3]),
        (0.4, 2, [0, 1, 5, 6]),
        (0.2, 0, [0, 5]),
        (0.3, 2, [0, 5, 6]),
        (0.01, 1, [0]),
        (0.2, 7, [0, 5]),
    ],
)
def test_the_share_of_the_labels_is_taken_in_blocks(cfg, share, blocks, expected):
    cfg.DATASETS.LABEL_SHARE, cfg.DATASETS.LABEL_BLOCKS = share, blocks
    assert labelled_indices(10, cfg) == expected


@pytest.mark.parametrize(
    ("share", "per_block"), [(0.05, (6, 6, 6)), (0.10, (12, 12, 13)), (0.25, (30, 31, 31))]
)
def test_camvids_labels_stay_those_that_results_were_made_with(cfg, share, per_block):
    cfg.DATASETS.LABEL_SHARE, cfg.DATASETS.LABEL_BLOCKS = share, 3
    expected = [range(start, start + n) for start, n in zip((0, 122, 244), per_block, strict=True)]
    assert labelled_indices(367, cfg) == [place for block in expected for place in block]


def test_no_picture_is_taken_twice_and_none_is_missing(cfg):
    cfg.DATASETS.LABEL_SHARE, cfg.DATASETS.LABEL_BLOCKS = 7 / 8, 5
    assert labelled_indices(8, cfg) == [0, 1, 3, 4, 5, 6, 7]
    for size, total, blocks in product((8, 17, 29), range(1, 30), range(12)):
        cfg.DATASETS.LABEL_SHARE, cfg.DATASETS.LABEL_BLOCKS = min(1.0, total / size), blocks
        chosen = labelled_indices(size, cfg)
        assert len(chosen) == min(total, size) and chosen == sorted(set(chosen)) and chosen[-1] < size


def test_a_training_set_is_evaluated_on_the_pictures_that_keep_their_labels(cfg, dataset):
    def tested():
        return [sample["file_name"] for batch in build_test_loader(cfg, "small_test") for sample in batch]

    everything = tested()
    cfg.DATASETS.LABEL_SHARE, cfg.DATASETS.LABEL_BLOCKS = 0.5, 1
    assert tested() == [record["file_name"] for record in labelled_records(cfg)] == everything[:4]
    cfg.DATASETS.TRAIN = ("another",)
    assert tested() == everything and len(everything) == 7
