"""CIRKD's two losses against their formulas, pixel by pixel."""

from copy import deepcopy

import pytest
import reference
import torch
import torch.nn.functional as F
from ranks import on_ranks
from torch import nn

from fakd.functional import contrast
from fakd.losses.cirkd_batch import CIRKDBatch
from fakd.losses.cirkd_memory import CIRKDMemory
from fakd.structures import LossInputs, SegOutput, SegSpec


def spec(channels, num_classes=3):
    return SegSpec(num_classes=num_classes, feature_channels=channels)


def inputs(student, teacher, labels=None):
    """What a loss gets of two features and labels; the rest plays no part."""

    def output(feature):
        n, a, h, w = feature.shape
        return SegOutput(feature.new_zeros(n, 3, h, w), feature, feature.new_zeros(3, a))

    if labels is None:
        labels = torch.zeros(student.shape[0], *student.shape[2:], dtype=torch.int64)
    return LossInputs(output(student), output(teacher), labels, labels != reference.VOID)


def batch_loss(student, teacher, **options):
    loss = CIRKDBatch(CIRKDBatch.Config(**options), spec(student.shape[1]), spec(teacher.shape[1]))
    return loss(inputs(student, teacher))


def batch_by_hand(student, teacher, tau):
    """The mean over ordered pairs of images and pixels, one softmax at a time."""
    s, t = (F.normalize(x, dim=1).flatten(2).transpose(1, 2) for x in (student, teacher))
    n, m, _ = s.shape
    values = []
    for i in range(n):
        for j in range(n):
            for r in range(m):
                a, b = s[j] @ s[i, r] / tau, t[j] @ t[i, r] / tau
                values.append((b.softmax(0) * (b.log_softmax(0) - a.log_softmax(0))).sum())
    return sum(values) / len(values)


@pytest.fixture(params=[1 << 18, 7, 50], ids=lambda x: f"tile of {x}")
def tile(request, monkeypatch):
    monkeypatch.setattr(contrast, "CPU_TILE", request.param)


def test_batch_golden(golden, tile):
    assert batch_loss(golden.student, golden.teacher).item() == pytest.approx(0.230207336, rel=1e-8)


def test_batch_value_and_gradient_by_hand(tile):
    student = torch.randn(3, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(3, 6, 3, 3, dtype=torch.float64)
    value, wanted = batch_loss(student, teacher, tau=0.3), batch_by_hand(student, teacher, 0.3)
    assert value.item() == pytest.approx(wanted.item(), rel=1e-8)
    gradient, expected = (torch.autograd.grad(x, student)[0] for x in (value, wanted))
    torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-10)


def test_batch_ignores_the_length_of_a_pixel_and_is_zero_for_equals(golden):
    scale = 0.1 + torch.rand(2, 1, 4, 5, dtype=torch.float64)
    value = batch_loss(golden.student * scale, golden.teacher / scale)
    assert value.item() == pytest.approx(0.230207336, rel=1e-8)
    assert batch_loss(golden.teacher, golden.teacher).item() == 0.0


def test_batch_pools_first():
    student, teacher = torch.randn(2, 4, 5, 6).double(), torch.randn(2, 4, 5, 6).double()
    pooled = [F.avg_pool2d(x, 2, ceil_mode=True) for x in (student, teacher)]
    assert batch_loss(student, teacher, pool=2).item() == pytest.approx(batch_loss(*pooled).item(), rel=1e-10)


def test_batch_resizes_the_teacher():
    student, teacher = torch.randn(1, 4, 6, 6).double(), torch.randn(1, 4, 3, 3).double()
    larger = F.interpolate(teacher, size=(6, 6), mode="bilinear", align_corners=False)
    assert batch_loss(student, teacher).item() == pytest.approx(batch_loss(student, larger).item(), rel=1e-10)


SIZES = {"pixel_queue": 40, "region_queue": 10, "pixel_contrast": 12, "region_contrast": 6}


def memory_loss(student, teacher, **options):
    config = CIRKDMemory.Config(**{"storage": "float32", **SIZES, **options})
    return CIRKDMemory(config, spec(student.shape[1]), spec(teacher.shape[1]))


def features(student=4, teacher=6, n=2):
    return torch.randn(n, student, 5, 6), torch.randn(n, teacher, 5, 6)


def random_labels(n=2):
    labels = torch.randint(0, 3, (n, 5, 6))
    labels[0, :2] = reference.VOID
    return labels


def test_memory_value_and_gradient_by_hand(tile):
    student, teacher = (x.double() for x in features())
    labels = random_labels()
    loss = memory_loss(student, teacher, region_factor=0.5).double()
    sampled = {}
    for name, queue in loss.queues.items():
        queue.sample = lambda *a, f=queue.sample, n=name: sampled.setdefault(n, f(*a))
    value = loss(inputs(student, teacher, labels))
    wanted, valid = 0.0, labels != reference.VOID
    p = F.normalize(loss.projector(student), dim=1).movedim(1, -1)[valid]
    t = F.normalize(teacher, dim=1).movedim(1, -1)[valid]
    for name, factor, count in (("pixel", 1.0, 15), ("region", 0.5, 9)):
        keys = sampled[name][0].double()
        assert len(keys) == count
        a, b = p @ keys.T / 0.1, t @ keys.T / 0.1
        wanted += factor * (b.softmax(1) * (b.log_softmax(1) - a.log_softmax(1))).sum(1).mean()
    assert value.item() == pytest.approx(wanted.item(), rel=1e-8)
    parameters = list(loss.projector.parameters())
    got, expected = (torch.autograd.grad(x, parameters, retain_graph=True) for x in (value, wanted))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def one_feature_per_class(labels, channels=6):
    """(N, channels, h, w) features that are the same for all pixels of a class, and the unit vectors."""
    vectors = F.normalize(torch.randn(4, channels), dim=1)
    return vectors[labels.clamp(max=3)].movedim(-1, 1), vectors


def test_every_entry_of_a_queue_is_of_its_class():
    labels = random_labels()
    teacher, vectors = one_feature_per_class(labels)
    loss = memory_loss(torch.randn(2, 4, 5, 6), teacher, pixels_per_image=7)
    loss(inputs(torch.randn(2, 4, 5, 6), teacher, labels))
    counts = [[(image == k).sum().item() for k in range(3)] for image in labels]
    for name, most in (("pixel", 7), ("region", 1)):
        queue = loss.queues[name]
        for k in range(3):
            written = sum(min(most, image[k]) for image in counts)
            assert queue.filled[k] == written > 0
            assert torch.allclose(queue.entries[k, :written], vectors[k].expand(written, -1), atol=1e-6)
    assert torch.allclose(loss.queues["pixel"].entries.norm(dim=2), torch.ones(3, 40))


def test_authors_indexing_takes_the_first_pixels_of_the_image():
    labels = torch.cat([torch.zeros(1, 3, 6), torch.ones(1, 2, 6)], 1).long()
    teacher, vectors = one_feature_per_class(labels)
    loss = memory_loss(torch.randn(1, 4, 5, 6), teacher, authors_indexing=True)
    loss(inputs(torch.randn(1, 4, 5, 6), teacher, labels))
    # Class 1 has 12 pixels; the first 12 of the image are all of class 0. Its region is right all the same.
    assert torch.allclose(loss.queues["pixel"].entries[1, :12], vectors[0].expand(12, -1), atol=1e-6)
    assert torch.allclose(loss.queues["region"].entries[1, 0], vectors[1], atol=1e-6)


def test_memory_is_zero_for_equals():
    _, teacher = features()
    loss = memory_loss(teacher, teacher)
    loss.projector = nn.Identity()
    assert loss(inputs(teacher, teacher, random_labels())).item() == 0.0


@pytest.mark.parametrize("only_filled", [False, True])
def test_a_void_batch_costs_nothing_and_leaves_the_queues(only_filled):
    student, teacher = features()
    loss = memory_loss(student, teacher, only_filled=only_filled)
    before = {name: queue.entries.clone() for name, queue in loss.queues.items()}
    value = loss(inputs(student, teacher, torch.full((2, 5, 6), reference.VOID)))
    value.backward()
    assert value.item() == 0.0
    for parameter in loss.parameters():
        assert parameter.grad is not None and not parameter.grad.any()
    for name, queue in loss.queues.items():
        assert torch.equal(queue.entries, before[name]) and not queue.filled.any()


@pytest.mark.parametrize("only_filled", [False, True])
def test_what_was_never_written_counts_unless_left_out(only_filled):
    labels = torch.zeros(2, 5, 6, dtype=torch.int64)
    student, teacher = features()
    loss = memory_loss(student, teacher, only_filled=only_filled)
    other = deepcopy(loss)
    for queue in other.queues.values():
        queue.entries.copy_(queue.entries.flip(2))
    values = [x(inputs(student, teacher, labels)).item() for x in (loss, other)]
    assert (values[0] == values[1]) == only_filled


def test_evaluation_pushes_nothing():
    student, teacher = features()
    loss = memory_loss(student, teacher).eval()
    loss(inputs(student, teacher, random_labels()))
    assert not any(queue.filled.any() for queue in loss.queues.values())


def test_a_resumed_memory_goes_on_as_if_it_never_stopped():
    steps = [(*features(), random_labels()) for _ in range(4)]
    loss = memory_loss(*steps[0][:2])
    for step in steps[:2]:
        loss(inputs(*step))
    resumed = memory_loss(*steps[0][:2])
    resumed.load_state_dict(loss.state_dict())
    for step in steps[2:]:
        assert resumed(inputs(*step)).item() == loss(inputs(*step)).item()
    for name, value in loss.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def push_on_ranks(path):
    from detectron2.utils import comm

    rank, ranks = comm.get_rank(), comm.get_world_size()
    torch.manual_seed(1)
    steps = [(*features(n=4), random_labels(4)) for _ in range(3)]
    torch.manual_seed(100 + rank)  # as the trainer does, each rank draws its own
    loss = memory_loss(*steps[0][:2])
    for step in steps:
        loss(inputs(*(x.chunk(ranks)[rank] for x in step)))
    torch.save({k: v for k, v in loss.state_dict().items() if "projector" not in k}, f"{path}_{rank}.pt")


def test_two_processes_hold_the_queues_of_one(tmp_path):
    for ranks in (1, 2):
        on_ranks(push_on_ranks, ranks, str(tmp_path / f"{ranks}"))
    one, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1_0", "2_0", "2_1"))
    assert one["queues.pixel.filled"].min() > 20
    for name, value in one.items():
        torch.testing.assert_close(first[name], value, msg=name)
        assert torch.equal(second[name], first[name]), name


def test_bad_options_name_their_keys():
    with pytest.raises(MemoryError, match="Lower KD.CIRKDMemory.PIXEL_QUEUE"):
        memory_loss(*features(), pixel_queue=10**12)
    with pytest.raises(ValueError, match="KD.CIRKDMemory.STORAGE"):
        memory_loss(*features(), storage="int8")
    with pytest.raises(ValueError, match="KD.CIRKDMemory.TAU"):
        memory_loss(*features(), tau=0.001)
    with pytest.raises(ValueError, match="KD.CIRKDBatch.TAU"):
        batch_loss(*features(), tau=0.001)
