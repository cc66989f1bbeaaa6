"""Population based training: a trial goes on from another's checkpoint, with other values; no Ray here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fakd.checkpoint import load_tensors
from fakd.engine.run_folder import RunFolder
from fakd.files import atomic_write

from .plan import Trial

_FILE = "schedule.json"
_STATE = "model_" + "[0-9]" * 7 + ".pth"
_RATE = "SOLVER.BASE_LR"


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


def snapshot(trial: Trial, folder: Path) -> None:
    """Copies all that another trial needs to go on from here; the newest state is that of this evaluation."""
    shutil.copy(max(trial.folder.glob(_STATE)), folder)
    if (best := trial.folder / "model_best.pth").exists():
        shutil.copy(best, folder)
    (folder / _FILE).write_text(json.dumps(schedule_of(trial)))


def go_on(trial: Trial, values: Mapping[str, Any], found: Path | None) -> Trial:
    """The trial with the values it trains with from now on, its folder ready to resume from.

    Args:
        trial: a member of a population.
        values: what it shall train with if it takes over another one's weights.
        found: folder of a :func:`snapshot`, its own or another member's; None to go on with what it has.
    """
    if found is not None and not trial.finished:
        history = json.loads((found / _FILE).read_text())
        if history[-1]["run"] != trial.run:
            return _take_over(trial.with_values(values), found, history)
    values = schedule_of(trial)[-1]["values"]
    return trial if values == trial.values else trial.with_values(values)


def _take_over(trial: Trial, found: Path, history: list[dict[str, Any]]) -> Trial:
    (source,) = found.glob(_STATE)
    state = load_tensors(str(source))
    if _RATE in trial.values:
        _scale_rates(state["trainer"], trial.values[_RATE] / history[-1]["values"][_RATE])
    with atomic_write(trial.folder / source.name) as file:
        torch.save(state, file)
    for other in trial.folder.glob(_STATE):
        if other.name != source.name:
            other.unlink()
    if (best := found / "model_best.pth").exists():
        shutil.copy(best, trial.folder)
    RunFolder(trial.folder).write_config(trial.config())
    entry = {"iteration": state["iteration"] + 1, "run": trial.run, "values": dict(trial.values)}
    with atomic_write(trial.folder / _FILE, "w") as file:
        json.dump([*history, entry], file)
    return trial


def _scale_rates(trainer: dict[str, Any], factor: float) -> None:
    """A resumed optimizer and schedule start from the rates they were saved with."""
    schedule = trainer["hooks"]["LRScheduler"]
    schedule["base_lrs"] = [rate * factor for rate in schedule["base_lrs"]]
    for group in trainer["_trainer"]["optimizer"]["param_groups"]:
        group["lr"] *= factor
        group["initial_lr"] *= factor
