"""The points of a sweep's keys: a grid, drawn at random, or asked of Optuna."""

from __future__ import annotations

import functools
import itertools
import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from fakd.registry import DISTILL_LOSS_REGISTRY

from .spec import Spec, span
from .trial import Trial

if TYPE_CHECKING:
    import optuna

Point = dict[str, Any]


def axes_of(keys: Mapping[str, Any], losses: tuple[str, ...]) -> dict[str, Any]:
    """The keys that apply to a method with these losses."""
    others = tuple(f"KD.{name}." for name, _ in DISTILL_LOSS_REGISTRY if name not in losses)
    return {key: axis for key, axis in keys.items() if not key.startswith(others)}


def points(spec: Spec, axes: Mapping[str, Any]) -> list[Point]:
    """All points of a grid, or as many different ones at random as the sweep says, or as there are."""
    if not axes:
        return [{}]
    if spec.search == "grid":
        return [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]
    chance = random.Random(0)  # a resumed sweep draws the same points
    found: list[Point] = []
    for _ in range(100 * spec.samples):  # enough to meet all, where there are no more than that
        point = {key: draw(key, axis, chance) for key, axis in axes.items()}
        if point not in found:
            found.append(point)
        if len(found) == spec.samples:
            break
    return found


def rounded(value: float) -> float:
    """To the digits that a run's name shows."""
    return float(f"{value:.4g}")


def draw(key: str, axis: Any, chance: random.Random) -> Any:
    """A value of an axis at random."""
    if isinstance(axis, list) and axis:
        return chance.choice(axis)
    low, high, is_log = span(key, axis)
    return rounded(
        math.exp(chance.uniform(math.log(low), math.log(high))) if is_log else chance.uniform(low, high)
    )


class Search:
    """The points of one method, asked of Optuna by what earlier ones reached.

    They are kept in ``optuna.journal`` in the sweep's folder, so a resumed sweep knows them.
    """

    def __init__(
        self,
        name: str,
        axes: Mapping[str, Any],
        trials_at: Callable[[Point], list[Trial]],
        spec: Spec,
        output: Path,
    ):
        """
        Args:
            name: of the study in the journal.
            axes: of the keys of this method.
            trials_at: the trials at a point, one per seed; the mean of their metric is the point's score.
            spec: of the sweep.
            output: folder of the sweep.

        Raises:
            ValueError: Optuna is not installed, or an axis is not what it takes.
        """
        try:
            import optuna
            import optuna.storages.journal
        except ImportError as error:
            raise ValueError("search optuna needs Optuna: pip install 'fakd[optuna]' (or optuna).") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._name, self._trials_at, self._spec = optuna, name, trials_at, spec
        self._journal = output / "optuna.journal"
        self._ends = {
            key: axis if isinstance(axis, list) else span(key, axis)[:2] for key, axis in axes.items()
        }
        self._ranges = {key for key, axis in axes.items() if not isinstance(axis, list)}
        self._distributions = {key: self._distribution(key, axis) for key, axis in axes.items()}
        self._open: dict[int, list[Trial]] = {}

    def _distribution(self, key: str, axis: Any) -> optuna.distributions.BaseDistribution:
        if isinstance(axis, list) and axis:
            return self._optuna.distributions.CategoricalDistribution(axis)
        low, high, is_log = span(key, axis)
        return self._optuna.distributions.FloatDistribution(low, high, log=is_log)

    def ends(self) -> list[Trial]:
        """Trials with the values at the ends of the axes: if they build, so does what lies between."""
        count = max(map(len, self._ends.values()))
        corners = [{key: each[i % len(each)] for key, each in self._ends.items()} for i in range(count)]
        return [trial for corner in corners for trial in self._trials_at(corner)[:1]]

    @functools.cached_property
    def _study(self) -> optuna.Study:
        journal = self._optuna.storages.journal.JournalFileBackend(str(self._journal))
        study = self._optuna.create_study(
            storage=self._optuna.storages.JournalStorage(journal),
            study_name=self._name,
            direction="maximize" if self._spec.mode == "max" else "minimize",
            load_if_exists=True,
        )
        # After a resume the sampler must not draw its first numbers again.
        study.sampler = self._optuna.samplers.TPESampler(seed=len(study.trials))
        return study

    def known(self) -> list[Trial]:
        """The trials of all points so far."""
        # Optuna may choose a point of lists more than once, which is the same trials.
        return list(dict.fromkeys(trial for each in self._study.trials for trial in self._at(each.params)))

    def ask(self, count: int) -> list[Trial]:
        """Trials of that many points, first those that an interruption left open; none when all are done."""
        running = self._study.get_trials(states=[self._optuna.trial.TrialState.RUNNING])
        fresh = min(count - len(running), self._spec.samples - len(self._study.trials))
        asked = [*running, *(self._study.ask(self._distributions) for _ in range(fresh))]
        self._open = {each.number: self._at(each.params) for each in asked}
        return list(dict.fromkeys(trial for trials in self._open.values() for trial in trials))

    def tell(self, has_failed: Callable[[Trial], bool]) -> None:
        """Tells Optuna what the trials reached since :meth:`ask`; one that was interrupted stays open."""
        for number, trials in self._open.items():
            if all(trial.finished for trial in trials):
                self._study.tell(number, fmean(self._score(trial) for trial in trials))
            elif any(has_failed(trial) for trial in trials):
                self._study.tell(number, state=self._optuna.trial.TrialState.FAIL)

    def _at(self, point: Point) -> list[Trial]:
        return self._trials_at({k: rounded(v) if k in self._ranges else v for k, v in point.items()})

    def _score(self, trial: Trial) -> float:
        return json.loads((trial.folder / "result.json").read_text())["metrics"][self._spec.metric]
