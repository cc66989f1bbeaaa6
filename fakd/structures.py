"""What networks hand to losses.

Shape legend, used everywhere in this package:
    N images, K classes, A feature channels before the classifier, H W image size,
    h w size of the map the classifier runs on, M = h * w pixels of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor


@dataclass(frozen=True)
class SegOutput:
    """What every segmentor returns, teacher or student, in training or not, never up-sampled.

    The last layer is linear, so ``logits == weight @ feature + bias`` at every pixel (tested for
    every registered head). Losses that reason about the classifier rely on it.

    Attributes:
        logits: (N, K, h, w) raw scores.
        feature: (N, A, h, w) the exact input of the classifier, after dropout.
        weight: (K, A) the classifier's live weight: gradients reach the classifier through it.
        bias: (K,) its bias, or None.
        aux_logits: (N, K, h', w') scores of the auxiliary head, or None.
        stages: backbone maps by name, fine to coarse.
    """

    logits: Tensor
    feature: Tensor
    weight: Tensor
    bias: Tensor | None = None
    aux_logits: Tensor | None = None
    stages: Mapping[str, Tensor] = field(default_factory=dict)

    def detach(self) -> SegOutput:
        """The same maps cut off from the graph."""
        return self._map(lambda x: x.detach())

    def float(self) -> SegOutput:
        """The same maps in float32; float64 stays as it is."""
        return self._map(lambda x: x if x.element_size() >= 4 else x.float())

    def _map(self, fn: Callable[[Tensor], Tensor]) -> SegOutput:
        def optional(x: Tensor | None) -> Tensor | None:
            return None if x is None else fn(x)

        return replace(
            self,
            logits=fn(self.logits),
            feature=fn(self.feature),
            weight=fn(self.weight),
            bias=optional(self.bias),
            aux_logits=optional(self.aux_logits),
            stages=_Mapped(fn, self.stages),
        )


class _Mapped(Mapping[str, Tensor]):
    """Maps by name to which a function is applied when they are asked for: most losses ask for none."""

    def __init__(self, fn: Callable[[Tensor], Tensor], maps: Mapping[str, Tensor]) -> None:
        self._fn, self._maps = fn, maps
        self._done: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._done:
            self._done[name] = self._fn(self._maps[name])
        return self._done[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._maps)

    def __len__(self) -> int:
        return len(self._maps)


@dataclass(frozen=True)
class SegSpec:
    """What is known of a network before it runs: enough to build a loss and its adapters.

    Attributes:
        num_classes: K.
        feature_channels: A.
        stage_channels: channels of each map in ``SegOutput.stages``.
    """

    num_classes: int
    feature_channels: int
    stage_channels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class LossInputs:
    """One step's material for every distillation loss, computed once and shared.

    Attributes:
        student: the student's outputs, with gradient.
        teacher: the teacher's outputs, detached.
        labels: (N, h, w) int64 ground truth on the student's feature grid. Void pixels hold an
            arbitrary value outside [0, K).
        valid: (N, h, w) bool, False where the ground truth is void or the image was padded.
        unlabelled: (N, h, w) bool, the pixels of images without labels, padding aside; None where
            there are no such images. With KD.PSEUDO_CONFIDENCE some of them are valid, too.
        progress: fraction of the training done, in [0, 1).
    """

    student: SegOutput
    teacher: SegOutput
    labels: Tensor
    valid: Tensor
    progress: float = 0.0
    unlabelled: Tensor | None = None

    @property
    def classes(self) -> Tensor:
        """(N, h, w) int64 in [0, K]: the labels, with K where they are void."""
        return self.labels.where(self.valid, self.student.logits.shape[1])

    @property
    def kept(self) -> Tensor:
        """(N, h, w) bool: what losses without labels leave after void: valid and unlabelled pixels."""
        return self.valid if self.unlabelled is None else self.valid | self.unlabelled
