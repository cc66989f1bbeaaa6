"""The experiments of a paper's tables by name, and the values that the paper prints for them.

``projects/<project>/experiments.yaml`` holds ``methods``, the recipes that every pair is trained with;
``pairs``, from ``<dataset>/<student>`` to what differs from ``configs/<dataset>/<student>.yaml``, which names
its teacher; ``more``, single experiments with further keys; and ``renamed``, from an old name, or its last
part, to the new one. The last part of a name is the name of its recipe, with the keys it changes.

``projects/<project>/paper.yaml`` holds ``metrics``, the order of the printed values; ``labels``, from a
recipe to what the paper calls it; and ``tables``, from a title to its rows, from a pair to the values by
method.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import shipped
from ..validation import read_yaml


@dataclass(frozen=True)
class Experiment:
    """What :func:`fakd.config.load_config` needs for one value of a paper's table.

    Attributes:
        name: project, dataset, student and method, with slashes.
        config_file: of the student.
        recipe: of the method.
        opts: further keys and values.
    """

    name: str
    config_file: str
    recipe: str
    opts: tuple[str, ...]


@dataclass(frozen=True)
class Paper:
    """What a paper prints.

    Attributes:
        metrics: names of the values of one entry, in their order.
        labels: what the paper calls a recipe, by recipe.
        tables: title -> pair -> method -> values, or one value, as printed: a number or a text.
    """

    metrics: tuple[str, ...]
    labels: dict[str, str]
    tables: dict[str, dict[str, dict[str, Any]]]

    def values(self, pair: str) -> dict[str, dict[str, float]]:
        """Method -> metric -> number of one pair, of all tables together; {} for a pair in none."""
        found: dict[str, dict[str, float]] = {}
        for rows in self.tables.values():
            for method, printed in rows.get(pair, {}).items():
                numbers = printed if isinstance(printed, list) else [printed]
                named = zip(self.metrics, numbers, strict=True)
                found[method] = {metric: number for metric, number in named if not isinstance(number, str)}
        return found


def read_paper(project: str) -> Paper:
    """What ``projects/<project>/paper.yaml`` says.

    Raises:
        FileNotFoundError: there is no such project below the current folder or in the package.
    """
    given = _read(project, "paper.yaml")
    return Paper(tuple(given["metrics"]), given.get("labels", {}), given["tables"])


def read_experiments(project: str) -> dict[str, Experiment]:
    """All experiments of ``projects/<project>/experiments.yaml`` by name without the project.

    Raises:
        FileNotFoundError: there is no such project below the current folder or in the package.
    """
    given = _read(project, "experiments.yaml")
    pairs = {name: entry or {} for name, entry in given["pairs"].items()}
    wanted: dict[str, tuple[str, dict[str, Any]]] = {
        f"{pair}/{recipe}": (pair, {"recipe": recipe})
        for pair, entry in pairs.items()
        for recipe in entry.get("methods", given["methods"])
    }
    wanted |= {name: (entry["pair"], entry) for name, entry in given.get("more", {}).items()}
    return {name: _experiment(project, name, pair, pairs[pair], own) for name, (pair, own) in wanted.items()}


def find_experiment(name: str) -> Experiment:
    """An experiment by its full name, for instance ``FAKD/ade20k/pspnet_r18/fakd_paper``.

    Raises:
        FileNotFoundError: see :func:`read_experiments`.
        KeyError: the project has no such experiment; the message gives the new name or the nearest names.
    """
    project, _, rest = name.partition("/")
    experiments = read_experiments(project)
    if rest in experiments:
        return experiments[rest]
    renamed = _read(project, "experiments.yaml").get("renamed", {})
    pair, _, method = rest.rpartition("/")
    for new in (renamed.get(rest), f"{pair}/{renamed.get(method)}"):
        if new in experiments:
            raise KeyError(
                f"{name} is named {project}/{new} now: the last part is the recipe that an experiment runs."
            )
    near = difflib.get_close_matches(rest, experiments, n=3, cutoff=0.4) or sorted(experiments)[:3]
    raise KeyError(f"{project} has no experiment '{rest}'. Near: {', '.join(near)}.")


def _read(project: str, file: str) -> dict[str, Any]:
    path = Path(shipped(f"projects/{project}/{file}"))
    if not path.is_file():
        places = [Path("projects"), Path(__file__).parents[1] / "projects"]
        known = sorted({found.parent.name for place in places for found in place.glob(f"*/{file}")})
        raise FileNotFoundError(
            f"no '{path}' (looked from {Path.cwd()} and in the package); projects with tables here: "
            f"{', '.join(known) or 'none'}."
        )
    return read_yaml(path)


def _experiment(project: str, name: str, pair: str, entry: dict[str, Any], own: dict[str, Any]) -> Experiment:
    opts = {"OUTPUT_DIR": f"output/{project}/{name}", **entry.get("opts", {}), **own.get("opts", {})}
    return Experiment(
        name=f"{project}/{name}",
        config_file=f"configs/{entry.get('config', pair)}.yaml",
        recipe=own["recipe"],
        opts=tuple(str(word) for pair in opts.items() for word in pair),
    )
