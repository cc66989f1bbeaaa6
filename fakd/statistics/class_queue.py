"""Memory queues of unit vectors, one per class, filled by all ranks."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ..functional.ranks import num_ranks
from ..functional.segments import class_counts

STORAGE = {"float16": torch.float16, "float32": torch.float32}


class SharedRandom(nn.Module):
    """Random integers that are equal on all ranks, independent of their own generators.

    The splitmix64 generator. Its state is a buffer on the device, so the host is not synchronised
    with, and a resumed run continues the sequence.
    """

    state: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("state", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, count: int) -> Tensor:
        """(count,) int64 in [0, 2^63); in evaluation the same again."""
        x = torch.arange(1, count + 1, device=self.state.device) * -0x61C8864680B583EB + self.state
        if self.training:
            self.state.copy_(x[-1])
        x = (x ^ _shift(x, 30)) * -0x40A7B892E31B1A47
        x = (x ^ _shift(x, 27)) * -0x6B2FB644ECCEEE15
        return _shift(x ^ _shift(x, 31), 1)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift int64 to the right as if it had no sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


class ClassQueue(nn.Module):
    """A ring buffer of unit vectors per class, without host synchronisation or a loop over classes.

    State, for K classes of S entries with A channels: ``entries`` (K, S, A), random unit vectors at first;
    ``pointer`` (K,) int64, the place of the next entry; ``filled`` (K,) int64, places written so far.

    Args:
        num_classes: K.
        size: S.
        channels: A.
        storage: ``float16``, half the memory, which moves a similarity by less than 1e-3; or ``float32``.
        key: the config key of ``size``, for messages.

    Raises:
        ValueError: ``size`` is not positive.
        MemoryError: the queue is larger than the memory.
    """

    entries: Tensor
    pointer: Tensor
    filled: Tensor

    def __init__(
        self, num_classes: int, size: int, channels: int, storage: str = "float16", key: str = "size"
    ) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"{key} is {size}; a queue needs at least one entry per class.")
        dtype = STORAGE[storage]
        num_bytes = num_classes * size * channels * dtype.itemsize
        self._need = (
            f"{num_classes} classes x {size} entries x {channels} channels in {storage} take "
            f"{num_bytes / 1e9:.2f} GB. Lower {key}"
        )
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if num_bytes > memory:
            raise MemoryError(f"{self._need}: this machine has {memory / 1e9:.2f} GB.")
        entries = torch.empty(num_classes, size, channels, dtype=dtype)
        same = torch.Generator().manual_seed(0)  # on all ranks
        for queue in entries:  # one at a time: in float32 all together would be twice the queue
            queue.copy_(F.normalize(torch.randn(size, channels, generator=same), dim=1))
        self.register_buffer("entries", entries)
        self.register_buffer("pointer", torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer("filled", torch.zeros(num_classes, dtype=torch.int64))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ClassQueue:
        """Move to a device, which may have too little memory."""
        try:
            return super()._apply(fn, recurse)
        except torch.OutOfMemoryError as error:
            raise MemoryError(f"{self._need}: the device has too little memory left.") from error

    @torch.no_grad()
    def push(self, rows: Tensor, classes: Tensor, most: int) -> None:
        """Append rows to the queues of their classes, in their order; the oldest entries make room.

        Args:
            rows: (P, A) unit vectors.
            classes: (P,) int64 in [0, K]; rows of K are left out.
            most: no class has more rows than that, which must be known without reading the labels.
        """
        k, size, channels = self.entries.shape
        width = min(most, size)
        counts = class_counts(classes, k + 1)
        first = (counts.cumsum(0) - counts)[:k, None]
        counts = counts[:k, None]
        order = torch.argsort(classes, stable=True)
        # The last ``width`` rows of each class. As many places are written, all different, and those beyond
        # a class's rows get what they hold: how many rows there are is not known here.
        place = torch.arange(width, device=classes.device) + (counts - width).clamp(min=0)
        new = rows[order[(first + place).clamp(max=len(order) - 1)]].to(self.entries.dtype)
        classes = torch.arange(k, device=classes.device)[:, None]
        slots = (self.pointer[:, None] + place) % size
        old = self.entries[classes, slots]
        self.entries[classes, slots] = torch.where((place < counts)[..., None], new, old)
        self.pointer.add_(counts[:, 0]).remainder_(size)
        self.filled.add_(counts[:, 0]).clamp_(max=size)

    def sample(
        self, count: int, random: SharedRandom, only_filled: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Entries at random places, the same in every queue; only these are copied.

        Args:
            count: places, all different; all there are if it is more.
            random: generator of the places.
            only_filled: places that were written, of each queue others, and perhaps one twice.

        Returns:
            keys: (K n, A) float32 for n places, class after class.
            weight: (K n,) 0 for keys of a queue in which nothing was written, or None if all count.
        """
        k, size, _ = self.entries.shape
        draws = random(size)
        if not only_filled:
            return self.entries.index_select(1, draws.argsort()[:count]).flatten(0, 1).float(), None
        draws = draws[:count]
        slots = draws % self.filled.clamp(min=1)[:, None]
        classes = torch.arange(k, device=draws.device)[:, None]
        weight = (self.filled > 0).float()[:, None].expand_as(slots)
        return self.entries[classes, slots].flatten(0, 1).float(), weight.flatten()


def pick_pixels(classes: Tensor, num_classes: int, most: int, random: SharedRandom) -> tuple[Tensor, Tensor]:
    """Choose up to ``most`` random pixels of every class of every image.

    Args:
        classes: (N, M) int64 in [0, K], K for void.
        num_classes: K.
        most: pixels per image and class.
        random: generator of the choice.

    Returns:
        picked: (N, M) int64, the class of a chosen pixel and K for all others.
        ordinal: (N, M) int64, how many pixels of its class come before a pixel in its image.
    """
    n, m = classes.shape
    image = torch.arange(n, device=classes.device)[:, None]
    segment = (image * (num_classes + 1) + classes).flatten()
    shuffled = random(n * m).argsort()
    rank = _rank_in_segment(segment[shuffled], n * (num_classes + 1))
    rank = torch.empty_like(rank).index_copy_(0, shuffled, rank).view(n, m)
    ordinal = _rank_in_segment(segment, n * (num_classes + 1)).view(n, m)
    return classes.where(rank < most, num_classes), ordinal


def _rank_in_segment(segment: Tensor, num_segments: int) -> Tensor:
    """(P,) how many entries of its own segment come before each entry."""
    counts = class_counts(segment, num_segments)
    order = torch.argsort(segment, stable=True)
    rank = torch.arange(len(segment), device=segment.device) - (counts.cumsum(0) - counts)[segment[order]]
    return torch.empty_like(rank).index_copy_(0, order, rank)


def class_means(rows: Tensor, classes: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Normalised mean of every class of every image.

    Args:
        rows: (N, M, A) unit vectors.
        classes: (N, M) int64 in [0, K], K for void.
        num_classes: K.

    Returns:
        means: (N K, A), image after image.
        labels: (N K,) int64, the class of a mean and K where the image has no pixel of it.
    """
    n, _, a = rows.shape
    k = num_classes
    segment = (torch.arange(n, device=classes.device)[:, None] * (k + 1) + classes).flatten()
    sums = torch.zeros(n * (k + 1), a, device=rows.device).index_add_(0, segment, rows.flatten(0, 1).float())
    present = class_counts(segment, n * (k + 1)).view(n, k + 1)[:, :k] > 0
    labels = torch.arange(k, device=classes.device).where(present, k)
    return F.normalize(sums.view(n, k + 1, a)[:, :k].flatten(0, 1), dim=1), labels.flatten()


def gather_images(x: Tensor) -> Tensor:
    """(N, ...) of every rank, one rank after the other; of this one alone without a process group.

    All ranks must bring the same shape.
    """
    if num_ranks() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(num_ranks())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)
