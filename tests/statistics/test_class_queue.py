"""Class queues: what goes in, where, and that ranks agree."""

import pytest
import torch
import torch.nn.functional as F
from ranks import on_ranks

from fakd.statistics.class_queue import ClassQueue, SharedRandom, class_means, gather_images, pick_pixels


def rows(values):
    """Unit vectors that are told apart by their angle."""
    angle = torch.tensor(values, dtype=torch.float32)
    return torch.stack([angle.cos(), angle.sin()], 1)


def test_shared_random_is_splitmix64():
    random = SharedRandom()
    # The first outputs of the published generator for state 0, less their lowest bit.
    known = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert random(3).tolist() == [x >> 1 for x in known]
    again = SharedRandom()
    assert torch.cat([again(2), again(1)]).tolist() == [x >> 1 for x in known]


def test_a_fresh_queue_holds_different_unit_vectors():
    queue = ClassQueue(3, 5, 8, "float32")
    assert torch.allclose(queue.entries.norm(dim=2), torch.ones(3, 5))
    assert len(queue.entries.flatten(0, 1).unique(dim=0)) == 15
    assert queue.filled.tolist() == [0, 0, 0]


def test_rows_go_to_their_class_in_order_and_the_rest_stays():
    queue = ClassQueue(3, 4, 2, "float32")
    before = queue.entries.clone()
    new = rows([0.1, 0.2, 0.3, 0.4])
    queue.push(new, torch.tensor([2, 0, 2, 3]), most=4)
    assert torch.equal(queue.entries[2, :2], new[[0, 2]])
    assert torch.equal(queue.entries[0, 0], new[1])
    before[2, :2], before[0, 0] = new[[0, 2]], new[1]
    assert torch.equal(queue.entries, before)
    assert queue.pointer.tolist() == [1, 0, 2] and queue.filled.tolist() == [1, 0, 2]


def test_the_pointer_wraps_and_the_newest_entries_stay():
    queue = ClassQueue(2, 4, 2, "float32")
    new = rows([0.1 * i for i in range(1, 11)])
    for part in new.split(3):
        queue.push(part, torch.ones(len(part), dtype=torch.int64), most=3)
    assert queue.pointer.tolist() == [0, 10 % 4] and queue.filled.tolist() == [0, 4]
    assert torch.equal(queue.entries[1], new[[8, 9, 6, 7]])


def test_more_rows_than_places_leave_the_last():
    queue = ClassQueue(1, 3, 2, "float32")
    new = rows([0.1 * i for i in range(8)])
    queue.push(new, torch.zeros(8, dtype=torch.int64), most=8)
    assert queue.pointer.item() == 8 % 3 and queue.filled.item() == 3
    assert torch.equal(queue.entries[0], new[[6, 7, 5]])


def test_sampling_takes_the_same_places_of_every_class():
    queue = ClassQueue(3, 6, 2, "float32")
    keys, weight = queue.sample(4, SharedRandom())
    assert weight is None and keys.shape == (12, 2)
    places = [(queue.entries == key).all(2).nonzero() for key in keys]
    classes, slots = torch.cat(places).view(3, 4, 2).unbind(2)
    assert torch.equal(classes, torch.arange(3)[:, None].expand(3, 4))
    assert (slots == slots[0]).all() and len(slots[0].unique()) == 4
    assert queue.sample(100, SharedRandom())[0].shape == (18, 2)


def test_sampling_of_written_entries_only():
    queue = ClassQueue(2, 6, 2, "float32")
    new = rows([0.1, 0.2])
    queue.push(new, torch.ones(2, dtype=torch.int64), most=2)
    keys, weight = queue.sample(5, SharedRandom(), only_filled=True)
    assert weight.tolist() == [0.0] * 5 + [1.0] * 5
    assert all((key == new).all(1).any() for key in keys[5:])


def test_half_precision_takes_half_the_memory_and_keeps_the_direction():
    half, full = ClassQueue(2, 50, 32), ClassQueue(2, 50, 32, "float32")
    assert half.entries.nbytes * 2 == full.entries.nbytes
    cosine = F.cosine_similarity(half.sample(50, SharedRandom())[0], full.sample(50, SharedRandom())[0])
    assert cosine.min() > 1 - 1e-6


def test_a_queue_larger_than_the_memory_says_so():
    with pytest.raises(MemoryError, match=r"150 classes x 1000000000 entries.*GB\. Lower KD\.X\.PIXEL_QUEUE"):
        ClassQueue(150, 10**9, 512, key="KD.X.PIXEL_QUEUE")
    with pytest.raises(ValueError, match="KD.X.PIXEL_QUEUE is 0"):
        ClassQueue(150, 0, 512, key="KD.X.PIXEL_QUEUE")


def test_pixels_are_picked_per_image_and_class():
    classes = torch.randint(0, 4, (3, 60))
    classes[1] = 2
    picked, ordinal = pick_pixels(classes, 3, 5, SharedRandom())
    for n in range(3):
        for k in range(3):
            here = classes[n] == k
            assert (picked[n] == k).sum() == min(5, here.sum())
            assert here[picked[n] == k].all()
            assert torch.equal(ordinal[n][here], torch.arange(here.sum()))


def test_every_pixel_of_a_class_is_as_likely():
    random, classes = SharedRandom(), torch.zeros(1, 10, dtype=torch.int64)
    hits = sum((pick_pixels(classes, 1, 4, random)[0] == 0).float() for _ in range(500))
    assert (hits / 500 - 0.4).abs().max() < 0.1


def test_class_means_are_those_of_each_image():
    x = F.normalize(torch.randn(2, 30, 4), dim=2)
    classes = torch.randint(0, 3, (2, 30))
    classes[1][classes[1] == 0] = 3
    means, labels = class_means(x, classes, 3)
    assert labels.tolist() == [0, 1, 2, 3, 1, 2]
    for n in range(2):
        for k in range(3):
            here = classes[n] == k
            if here.any():
                wanted = F.normalize(x[n][here].mean(0), dim=0)
                assert torch.allclose(means[3 * n + k], wanted, atol=1e-6)


def test_without_a_process_group_the_batch_is_all_there_is():
    x = torch.rand(2, 3)
    assert gather_images(x) is x


def gather_on_a_rank(folder):
    from detectron2.utils import comm

    rank = comm.get_rank()
    torch.save(gather_images(torch.arange(4).view(2, 2) + 10 * rank), f"{folder}/{rank}.pt")


def test_ranks_gather_the_whole_batch_in_order(tmp_path):
    on_ranks(gather_on_a_rank, 2, str(tmp_path))
    wanted = torch.tensor([[0, 1], [2, 3], [10, 11], [12, 13]])
    for rank in range(2):
        assert torch.equal(torch.load(tmp_path / f"{rank}.pt"), wanted)
