"""The tables of variances and Eq. 8 against their definitions, and what they may cost."""

import pytest
import reference
import torch
from reference import pixel_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fakd.functional import augmentation
from fakd.functional.augmentation import (
    SAFE_EXPONENT,
    augmented_pixel_kl,
    logit_variance,
    margin_variance,
    margin_variance_by_label,
)


def random_classifier(k=4, a=6, seed=0, scale=1.0):
    """Weight (K, A) and full-rank covariances (K, A, A), float64."""
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(k, a, generator=g, dtype=torch.float64)
    root = torch.randn(k, a, 2 * a, generator=g, dtype=torch.float64)
    return weight, scale * root @ root.transpose(1, 2) / (2 * a)


def random_pixels(k=4, n=2, h=3, w=5, seed=0):
    """Both logits (N, K, h, w) and labels (N, h, w) with void as K."""
    g = torch.Generator().manual_seed(seed)
    z, t = (2 * torch.randn(n, k, h, w, generator=g, dtype=torch.float64) for _ in range(2))
    labels = torch.randint(0, k + 1, (n, h, w), generator=g)
    return z, t, labels


def margins_of_all_labels(weight, covariance):
    size = len(weight)
    return torch.stack([reference.variance_of_margin(weight, covariance, y) for y in range(size)])


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("k", [1, 4, 2 * augmentation.CHUNK + 1])
def test_tables_equal_their_definitions(k, diagonal):
    weight, covariance = random_classifier(k, 3)
    given = covariance
    if diagonal:
        given = covariance.diagonal(dim1=1, dim2=2)
        covariance = torch.diag_embed(given)
    every = margins_of_all_labels(weight, covariance)
    own = torch.stack([every[c, c] for c in range(k)])
    expected = {
        logit_variance: reference.variance_of_logit(weight, covariance),
        margin_variance: own,
        margin_variance_by_label: every,
    }
    for function, table in expected.items():
        torch.testing.assert_close(function(weight, given), table, rtol=1e-10, atol=1e-10)
        single = function(weight.float(), given.float())
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), table, rtol=1e-4, atol=1e-4)


def test_golden_tables(golden):
    _, _, covariance = reference.class_statistics(golden.feature, golden.labels, 3)
    q = [
        [4.560883, 7.911183, 1.559568],
        [1.663204, 3.181765, 4.002507],
        [3.291694, 4.962975, 2.868536],
    ]
    d = [[0, 3.252304, 13.763020], [4.926423, 0, 7.434805], [4.182456, 1.334587, 0]]
    for function, table in ((logit_variance, q), (margin_variance, d)):
        expected = torch.tensor(table, dtype=torch.float64)
        torch.testing.assert_close(function(golden.weight, covariance), expected, rtol=0, atol=1e-6)


def test_tables_are_variances_of_logits_within_a_class(golden):
    """For statistics of a set of pixels q is the variance of a logit over a class, D that of a difference."""
    _, _, covariance = reference.class_statistics(golden.feature, golden.labels, 3)
    q, d = logit_variance(golden.weight, covariance), margin_variance(golden.weight, covariance)
    scores = golden.logits.movedim(1, -1)
    for y in range(3):
        of_class = scores[golden.labels == y]
        torch.testing.assert_close(q[:, y], of_class.var(0, unbiased=False))
        lead = of_class - of_class[:, y : y + 1]
        torch.testing.assert_close(d[y], lead.var(0, unbiased=False))


@pytest.mark.parametrize("function", [margin_variance, margin_variance_by_label])
def test_margins_have_a_zero_diagonal_and_are_never_negative(function):
    """The expanded square cancels in float32; the tables must not show it."""
    weight, covariance = random_classifier(5, 8, scale=1e4)
    weight = 1e-3 * weight + 10
    table = function(weight.float(), covariance.float())
    assert torch.equal(table.diagonal(dim1=-2, dim2=-1), torch.zeros(table.shape[:-1]))
    assert (table >= 0).all()


def test_margins_of_close_weights_do_not_cancel():
    weight, covariance = random_classifier(5, 8)
    weight = (1e-3 * weight + 10).float()
    expected = margins_of_all_labels(weight.double(), covariance)
    expected = torch.stack([expected[c, c] for c in range(5)])
    table = margin_variance(weight, covariance.float())
    torch.testing.assert_close(table.double(), expected, rtol=1e-2, atol=0)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("function", [logit_variance, margin_variance, margin_variance_by_label])
def test_gradient_into_the_classifier(function, diagonal, monkeypatch):
    monkeypatch.setattr(augmentation, "CHUNK", 3)
    weight, covariance = random_classifier(4, 3)
    if diagonal:
        covariance = covariance.diagonal(dim1=1, dim2=2)
    slopes = torch.randn(4, 4, 4, dtype=torch.float64)[: 4 if function is margin_variance_by_label else 1]

    def loss(w):
        return (slopes * function(w, covariance)).sum()

    assert torch.autograd.gradcheck(loss, (weight.requires_grad_(),))


@pytest.mark.parametrize("of", ["class", "label"])
def test_equals_the_tensor_of_pixels_by_classes_by_classes(of, computed_as):
    weight, covariance = random_classifier()
    for seed, (tau, lambda_) in enumerate(((1.0, 0.7), (3.0, 2.0))):
        z, t, labels = random_pixels(seed=seed)
        every = margins_of_all_labels(weight, covariance)
        table = every if of == "label" else torch.stack([every[c, c] for c in range(4)])
        valid = labels != 4
        for mask in (None, valid):
            total = augmented_pixel_kl(
                z.flatten(2),
                t.flatten(2),
                lambda_ / (2 * tau**2) * table,
                labels.flatten(1),
                tau,
                None if mask is None else mask.flatten(1),
            )
            kept = torch.ones_like(valid) if mask is None else mask
            count = kept.sum().item()
            expected = reference.fakd_pixel(z, t, weight, covariance, labels, tau, lambda_, of, mask)
            seen = t.movedim(1, -1)[kept].T[None, :, :, None]
            assert (tau**2 * total / count).item() == pytest.approx(
                expected - pixel_entropy(seen, tau), abs=1e-10
            )


@pytest.mark.parametrize("by_label", [False, True])
@pytest.mark.parametrize("largest", [2.0, 2 * SAFE_EXPONENT])
def test_gradients_pass_the_numerical_check(by_label, largest, computed_as):
    """In both forms of a block: as a product of exponentials, and one class at a time."""
    z, t, labels = random_pixels(h=2, w=3)
    g = torch.Generator().manual_seed(1)
    table = torch.rand(4, 4, 4, generator=g, dtype=torch.float64) * (1 - torch.eye(4)) * largest
    table = (table if by_label else table[0]).requires_grad_()
    valid = torch.rand(2, 6, generator=g) > 0.3

    def loss(student, table):
        return 0.3 * augmented_pixel_kl(student, t.flatten(2), table, labels.flatten(1), 1.5, valid)

    assert torch.autograd.gradcheck(loss, (z.flatten(2).requires_grad_(), table), fast_mode=True)


def test_no_gradient_into_the_teacher():
    z, t, labels = random_pixels()
    teacher = t.flatten(2).requires_grad_()
    table = torch.rand(4, 4, dtype=torch.float64)
    augmented_pixel_kl(z.flatten(2).requires_grad_(), teacher, table, labels.flatten(1)).backward()
    assert teacher.grad is None


def test_both_forms_of_a_block_agree():
    z, t, labels = random_pixels(n=3)
    z, p = z.flatten(2), t.flatten(2).softmax(1)
    g = 5 * torch.rand(3, 4, 4, dtype=torch.float64)
    seen = (labels < 4).flatten(1)[:, None]
    for here in (None, seen):
        for table in (g, g[:1]):
            product = augmentation._product_block(z, p, table, here, True)
            exact = augmentation._exact_block(z, p, table, here, True)
            for a, b in zip(product, exact, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("by_label", [False, True])
def test_huge_offsets_do_not_underflow(dtype, by_label, computed_as):
    """z = (0, 200) and g = (250, 0): the value is 250, a float32 product of exponentials gives -inf."""
    z = torch.tensor([0.0, 200.0], dtype=dtype)[None, :, None].repeat(1, 1, 3).requires_grad_()
    teacher = torch.tensor([-200.0, 200.0], dtype=dtype)[None, :, None].repeat(1, 1, 3)
    table = torch.tensor([[0.0, 0.0], [250.0, 0.0]], dtype=dtype)  # of the summed class 1
    table = table.repeat(2, 1, 1) if by_label else table
    total = augmented_pixel_kl(z, teacher, table, torch.zeros(1, 3, dtype=torch.long))
    assert total.item() == pytest.approx(3 * (250 - 200), rel=1e-5)
    total.backward()
    expected = torch.tensor([1.0, -1.0], dtype=dtype)[None, :, None].expand(1, 2, 3)
    torch.testing.assert_close(z.grad, expected, rtol=1e-5, atol=1e-6)


def test_crossing_the_safe_exponent_changes_nothing():
    z, t, labels = random_pixels()
    args = z.float().flatten(2), t.float().flatten(2)
    values = []
    for largest in (SAFE_EXPONENT * 0.999, SAFE_EXPONENT):
        table = largest * (1 - torch.eye(4))
        values.append(augmented_pixel_kl(*args, table, labels.flatten(1)).item() / largest)
    assert values[0] == pytest.approx(values[1], rel=1e-2)


def test_the_bound_is_never_below_the_plain_loss():
    """The offset of k = c is zero, so every LSE is at least z_c."""
    z, t, labels = random_pixels()
    p = t.flatten(2).softmax(1)
    for largest in (0.1, 10, 1000):
        table = largest * torch.rand(1, 4, 4, dtype=torch.float64) * (1 - torch.eye(4))
        _, block = augmentation._safe_form(table)
        lse, _, _ = block(z.flatten(2), p, table, None, False)
        assert (lse >= z.flatten(2)).all()


def test_another_device_decides_without_looking_at_the_values():
    table, block = augmentation._safe_form(torch.empty(1, 4, 4, device="meta"))
    assert table.dtype == torch.float64
    assert block is augmentation._product_block


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor made while it is active."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor):
                self.elements = max(self.elements, x.untyped_storage().size() // x.element_size())
        return result


@pytest.mark.parametrize("largest", [1.0, 2 * SAFE_EXPONENT])
@pytest.mark.parametrize("by_label", [False, True])
def test_no_tensor_has_an_entry_per_pixel_and_pair_of_classes(by_label, largest, computed_as):
    """Pixels by classes is what may be kept, and a table per row of pixels; not M K K, M K A or M M."""
    if computed_as == "small blocks":
        pytest.skip("the size of blocks is the subject")
    k, m = 16, 32 * 64
    z, t = torch.randn(2, 1, k, m)
    labels = torch.randint(0, k, (1, m))
    table = (largest * torch.rand(k, k, k) if by_label else largest * torch.rand(k, k)).requires_grad_()
    with LargestTensor() as largest_tensor:
        augmented_pixel_kl(z.requires_grad_(), t, table, labels).backward()
    assert largest_tensor.elements <= 2 * m * k


class Operations(TorchDispatchMode):
    """Counts the operations while it is active."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_no_operation_is_repeated_for_every_class():
    counts = []
    for k in (2, augmentation.CHUNK):
        with Operations() as operations:
            for function in (logit_variance, margin_variance, margin_variance_by_label):
                function(*random_classifier(k))
        counts.append(operations.count)
    assert counts[0] == counts[1]


def test_tables_cost_no_more_than_the_covariances():
    k, a = 20, 32
    weight, covariance = random_classifier(k, a)
    with LargestTensor() as largest_tensor:
        for function in (logit_variance, margin_variance, margin_variance_by_label):
            function(weight.requires_grad_(), covariance).sum().backward()
    assert largest_tensor.elements <= k * a * a
