"""Population based training: a trial continues from another's checkpoint, with other values; no Ray here.

All members pause at the same evaluation. Then those of the last quarter take over the weights of one of the
first, with values near its. What is drawn depends on the population and the iteration alone, so a resumed
sweep draws the same.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fakd.checkpoint import load_tensors
from fakd.engine.run_folder import RunFolder
from fakd.files import atomic_write

from .search import draw, rounded
from .spec import RATE, span
from .trial import Trial

_FILE = "schedule.json"
_SHARE = 0.25  # of the members that take over weights, and of the values that are drawn anew
_FACTORS = (0.8, 1.2)


def schedule_of(trial: Trial) -> list[dict[str, Any]]:
    """Which values the weights of a trial were trained with.

    Returns:
        ``iteration`` from which on the ``values`` were in force, and the ``run`` that trained with them: the
        last is the trial itself, those before it are where its weights come from.
    """
    file = trial.folder / _FILE
    if file.exists():
        return json.loads(file.read_text())
    return [{"iteration": 0, "run": trial.run, "values": dict(trial.values)}]


def as_scheduled(trial: Trial) -> Trial:
    """The trial with the values it trains with by now."""
    values = schedule_of(trial)[-1]["values"]
    return trial if values == trial.values else trial.with_values(values)


def exploit(members: Sequence[Trial], scores: Mapping[Trial, float], axes: Mapping[str, Any]) -> None:
    """Lets the worst of a population continue from the best.

    Args:
        members: all paused at one iteration.
        scores: of the members that reached it, higher is better.
        axes: lists and ranges of the keys that may change.
    """
    ranked = sorted(scores, key=lambda trial: scores[trial])
    count = min(math.ceil(len(ranked) * _SHARE), len(ranked) // 2)
    if not count:
        return
    first = members[0]
    chance = random.Random(f"{first.pair} {first.run} {first.seed} {first.reached}")
    for trial in ranked[:count]:
        donor = chance.choice(ranked[-count:])
        values = _explore(schedule_of(donor)[-1]["values"], axes, chance)
        continue_from(donor, trial.with_values(values))


def _explore(values: Mapping[str, Any], axes: Mapping[str, Any], chance: random.Random) -> dict[str, Any]:
    """Values near these: a factor up or down, in a list a place, and one time in four drawn anew."""
    found = {}
    for key, value in values.items():
        axis = axes[key]
        if chance.random() < _SHARE:
            found[key] = draw(key, axis, chance)
        elif isinstance(axis, list):
            place = axis.index(value) + chance.choice((-1, 1))
            found[key] = axis[min(max(place, 0), len(axis) - 1)]
        else:
            low, high, _ = span(key, axis)
            found[key] = rounded(min(max(value * chance.choice(_FACTORS), low), high))
    return found


def continue_from(donor: Trial, trial: Trial) -> None:
    """Makes a trial's folder ready to resume from the newest checkpoint of another one.

    Args:
        trial: with the values it trains with from now on.
    """
    history = schedule_of(donor)
    source = donor.checkpoints[-1]
    state = load_tensors(str(source))
    if RATE in trial.values:
        _scale_rates(state["trainer"], trial.values[RATE] / history[-1]["values"][RATE])
    with atomic_write(trial.folder / source.name) as file:
        torch.save(state, file)
    for other in trial.checkpoints:
        if other.name != source.name:
            other.unlink()
    if (best := donor.folder / "model_best.pth").exists():
        shutil.copy(best, trial.folder)
    RunFolder(trial.folder).write_config(trial.config())
    entry = {"iteration": state["iteration"] + 1, "run": trial.run, "values": dict(trial.values)}
    with atomic_write(trial.folder / _FILE, "w") as file:
        json.dump([*history, entry], file)


def _scale_rates(trainer: dict[str, Any], factor: float) -> None:
    """A resumed optimizer and schedule start from the rates they were saved with."""
    schedule = trainer["hooks"]["LRScheduler"]
    schedule["base_lrs"] = [rate * factor for rate in schedule["base_lrs"]]
    for group in trainer["_trainer"]["optimizer"]["param_groups"]:
        group["lr"] *= factor
        group["initial_lr"] *= factor
