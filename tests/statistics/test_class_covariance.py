"""The running covariance is that of all pixels together, in any batches, on any ranks."""

import copy

import pytest
import reference
import torch
import torch.distributed as dist
from detectron2.utils import comm
from ranks import on_ranks

from fakd.statistics import ClassCovariance, class_covariance

K, A = 5, 6
VOID = 255


def random_batch(seed, n=2, h=4, w=5, mean=0.0, classes=range(K), void=0.2):
    """Features (n, A, h, w), labels (n, h, w) with void, and the mask; each class around its own mean."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.tensor(list(classes))[torch.randint(0, len(classes), (n, h, w), generator=g)]
    labels[torch.rand(n, h, w, generator=g) < void] = VOID
    feature = torch.randn(n, A, h, w, generator=g, dtype=torch.float64)
    mix = torch.randn(A, A, generator=g, dtype=torch.float64) / A**0.5
    feature = torch.einsum("ab,nbhw->nahw", mix, feature)
    return feature + mean * (1 + labels.clamp(max=K)[:, None] / K), labels, labels != VOID


def a_set_of_batches(mean=0.0):
    """Batches of every awkward kind: other sizes, missing classes, one-pixel classes, nothing but void."""
    batches = [random_batch(i, n=1 + i % 3, h=3 + i, w=5, mean=mean) for i in range(3)]
    batches.append(random_batch(7, classes=[2], mean=mean))
    single = random_batch(8, classes=[0, 1], mean=mean)
    single[1][0, 0, 0], single[2][0, 0, 0] = 3, True
    batches.append(single)
    batches.append(random_batch(9, void=1.1, mean=mean))
    batches.append(random_batch(10, classes=[3], n=1, h=1, w=1, void=0, mean=mean))
    return batches  # class 4 is in the first three only


def direct(batches):
    """Statistics of all pixels at once, one class at a time."""
    feature = torch.cat([b[0].movedim(1, -1).flatten(0, 2) for b in batches])
    labels = torch.cat([b[1].flatten() for b in batches])
    return reference.class_statistics(feature.T[None, :, :, None], labels, K)


def estimate(batches, dtype=torch.float64, **options):
    statistics = ClassCovariance(K, A, **options).to(dtype)
    for feature, labels, valid in batches:
        statistics.update(feature.to(dtype), labels, valid)
    return statistics


def assert_equal(statistics, expected, atol=1e-10):
    count, mean, covariance = expected
    if statistics.diagonal:
        covariance = covariance.diagonal(dim1=1, dim2=2)
    assert torch.equal(statistics.count, count)
    torch.testing.assert_close(statistics.mean.double(), mean, rtol=0, atol=atol)
    torch.testing.assert_close(statistics.covariance.double(), covariance, rtol=0, atol=atol)


@pytest.fixture(params=["sorted", "packed"])
def scatter(request, monkeypatch):
    """Either way to sum outer products; the second is what other devices than the CPU take."""
    if request.param == "packed":
        monkeypatch.setattr(
            class_covariance, "_covariance_by_sorting", class_covariance._covariance_by_packing
        )


def test_golden_traces(golden, scatter):
    statistics = ClassCovariance(3, 6).double()
    statistics.update(golden.feature, golden.labels, golden.valid)
    assert statistics.count.tolist() == [11, 14, 13]
    traces = statistics.covariance.diagonal(dim1=1, dim2=2).sum(1)
    assert traces.tolist() == pytest.approx([4.408217, 5.978278, 3.957661], abs=1e-6)


@pytest.mark.parametrize("diagonal", [False, True])
def test_any_batches_give_the_statistics_of_all_pixels(diagonal, scatter):
    batches = a_set_of_batches()
    assert_equal(estimate(batches, diagonal=diagonal), direct(batches))
    assert_equal(estimate(batches[::-1], diagonal=diagonal), direct(batches))
    # After every batch, not only after the last.
    statistics = ClassCovariance(K, A, diagonal=diagonal).double()
    for i, (feature, labels, valid) in enumerate(batches):
        statistics.update(feature, labels, valid)
        assert_equal(statistics, direct(batches[: i + 1]))


def test_spread_is_trace_and_largest_eigenvalue():
    statistics = ClassCovariance(3, 2).double()
    statistics.covariance[0] = torch.tensor([[3.0, 1.0], [1.0, 3.0]])  # eigenvalues 2 and 4
    statistics.covariance[1, 1, 1] = torch.inf
    trace, largest = statistics.spread()
    assert trace.tolist() == pytest.approx([6, torch.nan, 0], nan_ok=True)
    assert largest.tolist() == pytest.approx([4, torch.nan, 0], nan_ok=True)
    diagonal = ClassCovariance(1, 3, diagonal=True)
    diagonal.covariance[0] = torch.tensor([1.0, 4.0, 2.0])
    assert torch.cat(diagonal.spread()).tolist() == [7, 4]


def test_a_class_that_was_never_seen_has_zeros(scatter):
    statistics = estimate([random_batch(0, classes=[1, 3])])
    for c in (0, 2, 4):
        assert statistics.count[c] == 0
        assert not statistics.mean[c].any() and not statistics.covariance[c].any()
    assert statistics.covariance[1].any()


def test_nothing_but_void_changes_nothing(scatter):
    statistics = estimate(a_set_of_batches())
    before = copy.deepcopy(statistics.state_dict())
    statistics.update(*random_batch(3, void=1.1))
    assert all(torch.equal(value, before[name]) for name, value in statistics.state_dict().items())
    empty = estimate([random_batch(3, void=1.1)])
    assert not any(value.any() for value in empty.state_dict().values())


def test_one_pixel_has_its_feature_as_mean_and_no_spread(scatter):
    feature, labels, valid = random_batch(0, n=1, h=1, w=1, void=0)
    statistics = estimate([(feature, labels, valid)])
    c = labels.item()
    torch.testing.assert_close(statistics.mean[c], feature[0, :, 0, 0])
    assert statistics.covariance[c].abs().max() < 1e-20


def test_void_pixels_have_no_influence_and_their_labels_are_not_read(scatter):
    feature, labels, valid = random_batch(0, void=0.5)
    expected = estimate([(feature, labels, valid)])
    other = torch.where(valid[:, None], feature, 1e3 * torch.randn_like(feature))
    for void in (-1, 254, 2**40, 0):
        changed = estimate([(other, labels.where(valid, void), valid)])
        assert_equal(changed, (expected.count, expected.mean, expected.covariance))


def test_float32_with_means_far_from_zero(scatter):
    """Squares before centring would lose the covariance: here the mean is ten and more deviations."""
    batches = [random_batch(i, n=4, h=32, w=32, mean=10.0) for i in range(4)] + a_set_of_batches(mean=10.0)
    for diagonal in (False, True):
        statistics = estimate(batches, torch.float32, diagonal=diagonal)
        assert statistics.covariance.dtype == torch.float32
        assert_equal(statistics, direct(batches), atol=2e-4)


def test_half_precision_features_are_summed_in_float32(scatter):
    batches = [random_batch(i, n=4, h=32, w=32) for i in range(2)]
    rounded = [(f.bfloat16(), y, v) for f, y, v in batches]
    statistics = ClassCovariance(K, A)
    for batch in rounded:
        statistics.update(*batch)
    assert_equal(statistics, direct([(f.double(), y, v) for f, y, v in rounded]), atol=1e-4)


def test_counts_are_exact_where_float32_stops_counting(scatter):
    statistics = estimate(a_set_of_batches(), torch.float32)
    statistics.count[:] = 2**24
    feature, labels, valid = random_batch(0, n=1, h=1, w=1, void=0)
    for _ in range(3):
        statistics.update(feature, labels, valid)
    assert statistics.count[labels.item()] == 2**24 + 3


@pytest.mark.parametrize("diagonal", [False, True])
def test_state_survives_a_save_and_load(diagonal, tmp_path):
    batches = a_set_of_batches()
    first = estimate(batches[:3], diagonal=diagonal)
    torch.save(first.state_dict(), tmp_path / "state.pth")
    second = ClassCovariance(K, A, diagonal=diagonal).double()
    second.load_state_dict(torch.load(tmp_path / "state.pth"))
    for batch in batches[3:]:
        second.update(*batch)
    assert_equal(second, direct(batches))
    assert set(first.state_dict()) == {"count", "mean", "covariance"}
    assert first.count.dtype == torch.int64


def test_no_gradient_and_nothing_trainable():
    feature, labels, valid = random_batch(0)
    statistics = ClassCovariance(K, A).double()
    statistics.update(feature.requires_grad_(), labels, valid)
    assert not list(statistics.parameters())
    assert not any(b.requires_grad for b in statistics.buffers())


def test_memory_layout_does_not_matter(scatter):
    feature, labels, valid = random_batch(0)
    expected = estimate([(feature, labels, valid)])
    last = feature.contiguous(memory_format=torch.channels_last)
    assert_equal(estimate([(last, labels, valid)]), (expected.count, expected.mean, expected.covariance))


@pytest.mark.parametrize("scatter", ["packed"], indirect=True)
def test_many_rows_per_class_are_all_packed(scatter, monkeypatch):
    """More rows than are multiplied at once, and classes that end within a row."""
    monkeypatch.setattr(class_covariance, "PACKED_ROW", 4)
    monkeypatch.setattr(class_covariance, "PACKED_ROWS_AT_ONCE", 3)
    batch = random_batch(0, n=3, h=7, w=5)
    assert_equal(estimate([batch]), direct([batch]))


# Two ranks -------------------------------------------------------------------------------------------

RANK_CASES = {
    "full": (torch.float64, False, 0.0),
    "diagonal": (torch.float64, True, 0.0),
    "full, far from zero, float32": (torch.float32, False, 10.0),
    "diagonal, far from zero, float32": (torch.float32, True, 10.0),
}


def batches_of_rank(rank, mean):
    """Unequal on purpose: class 0 is on rank 0 only, 1 on rank 1, 4 nowhere; once a rank sees only void."""
    few, other = ([0, 2, 3], [1, 2]) if rank == 0 else ([1, 2, 3], [2])
    return [
        random_batch(10 + rank, n=1 + rank, h=24, w=20, classes=few, mean=mean + rank),
        random_batch(20 + rank, classes=other, void=1.1 * rank, mean=mean),
        random_batch(30 + rank, n=1, h=1, w=1, classes=[3], void=0, mean=mean),
        random_batch(40 + rank, void=1.1, mean=mean),
    ]


def run_rank(folder):
    """What each process does: the updates of every case, counting the collectives they use."""
    rank = comm.get_rank()
    calls = []
    for name in ("all_reduce", "all_gather", "broadcast", "all_gather_into_tensor", "barrier"):
        original = getattr(dist, name)

        def counted(*args, original=original, **kwargs):
            calls.append(original.__name__)
            return original(*args, **kwargs)

        setattr(dist, name, counted)
    results = {}
    for case, (dtype, diagonal, mean) in RANK_CASES.items():
        del calls[:]
        statistics = estimate(batches_of_rank(rank, mean), dtype, diagonal=diagonal)
        results[case] = {"state": statistics.state_dict(), "calls": list(calls)}
    torch.save(results, f"{folder}/{rank}.pth")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """The results of two processes, by rank."""
    folder = tmp_path_factory.mktemp("ranks")
    on_ranks(run_rank, 2, str(folder))
    return [torch.load(folder / f"{rank}.pth") for rank in range(2)]


@pytest.mark.parametrize("case", RANK_CASES)
def test_two_ranks_equal_one_with_all_pixels(ranks, case):
    dtype, diagonal, mean = RANK_CASES[case]
    batches = batches_of_rank(0, mean) + batches_of_rank(1, mean)
    for rank in range(2):
        statistics = ClassCovariance(K, A, diagonal=diagonal).to(dtype)
        statistics.load_state_dict(ranks[rank][case]["state"])
        assert_equal(statistics, direct(batches), atol=1e-10 if dtype == torch.float64 else 2e-4)
    first, second = (ranks[rank][case]["state"] for rank in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("case", RANK_CASES)
def test_an_update_is_one_all_reduce(ranks, case):
    updates = len(batches_of_rank(0, 0))
    for rank in range(2):
        assert ranks[rank][case]["calls"] == ["all_reduce"] * updates
