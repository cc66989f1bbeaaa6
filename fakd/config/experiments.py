"""The cells of a paper's tables by name, each put together from a student's config and a recipe.

``projects/<project>/experiments.yaml`` holds ``methods``, from a column's name to its recipe, ``pairs``, from
``<dataset>/<student>`` to what differs from ``configs/<dataset>/<student>.yaml``, which names its teacher,
and ``more``, the cells of further tables.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Cell:
    """What :func:`fakd.config.load_config` needs for one cell.

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


def read_cells(project: str) -> dict[str, Cell]:
    """All cells of ``projects/<project>/experiments.yaml`` by name without the project.

    Raises:
        FileNotFoundError: there is no such project below the current folder.
    """
    path = Path("projects") / project / "experiments.yaml"
    if not path.is_file():
        known = (
            ", ".join(sorted(p.parent.name for p in Path("projects").glob("*/experiments.yaml"))) or "none"
        )
        raise FileNotFoundError(
            f"no '{path}' (looked from {Path.cwd()}); projects with tables here: {known}. Start from the "
            "root of the repository."
        )
    given = yaml.safe_load(path.read_text())
    pairs = {name: entry or {} for name, entry in given["pairs"].items()}
    wanted: dict[str, tuple[str, dict[str, Any]]] = {
        f"{pair}/{method}": (pair, {"recipe": recipe})
        for pair, entry in pairs.items()
        for method, recipe in (given["methods"] | entry.get("methods", {})).items()
    }
    wanted |= {name: (entry["pair"], entry) for name, entry in given.get("more", {}).items()}
    return {name: _cell(project, name, pair, pairs[pair], own) for name, (pair, own) in wanted.items()}


def _cell(project: str, name: str, pair: str, entry: dict[str, Any], own: dict[str, Any]) -> Cell:
    opts = {"OUTPUT_DIR": f"output/{project}/{name}", **entry.get("opts", {}), **own.get("opts", {})}
    return Cell(
        name=f"{project}/{name}",
        config_file=f"configs/{entry.get('config', pair)}.yaml",
        recipe=own["recipe"],
        opts=tuple(str(word) for pair in opts.items() for word in pair),
    )


def find_cell(name: str) -> Cell:
    """A cell by its full name, for instance ``FAKD/ade20k/pspnet_r18/fakd``.

    Raises:
        FileNotFoundError: see :func:`read_cells`.
        KeyError: the project has no such cell; the message gives the nearest names.
    """
    project, _, rest = name.partition("/")
    cells = read_cells(project)
    if rest not in cells:
        near = difflib.get_close_matches(rest, cells, n=3, cutoff=0.4) or sorted(cells)[:3]
        raise KeyError(f"{project} has no cell '{rest}'. Near: {', '.join(near)}.")
    return cells[rest]
