"""A paper's tables with what its experiments reached here, in the README of its project.

``projects/<project>/paper.yaml`` holds the paper's values, ``results.json`` beside it what finished runs of
its experiments reached, and the README, between two marks, the tables made of both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fakd.config import load_config, read_experiments, read_paper
from fakd.files import atomic_write

from .finished_run import FinishedRun
from .records import read_runs
from .table import TEACHER

BEGIN = "<!-- Below: written by tools/paper_tables.py from paper.yaml and results.json. -->"
END = "<!-- Above: written by tools/paper_tables.py. -->"


def collect_results(project: str, output: Path = Path("output")) -> list[str]:
    """Adds to ``results.json`` what the project's experiments reached, one entry per experiment and seed.

    Args:
        project: with an ``experiments.yaml``.
        output: runs of an experiment lie in ``<output>/<project>/<experiment>``, or in folders below it.

    Returns:
        A sentence for every run that was left out, because it is not the experiment at full length, or is not
        finished or readable.

    Raises:
        FileNotFoundError: there is no such project.
    """
    path = _folder(project) / "results.json"
    found: dict[str, list[dict[str, Any]]] = json.loads(path.read_text()) if path.exists() else {}
    left_out = []
    for name, experiment in read_experiments(project).items():
        folder = output / project / name
        if not folder.is_dir():
            continue
        try:
            runs, problems = read_runs([folder])
        except FileNotFoundError as error:
            runs, problems = [], [str(error)]
        left_out += problems
        cfg = load_config(experiment.config_file, experiment.opts, experiment.recipe)
        wanted = {
            "iterations": cfg.SOLVER.MAX_ITER,
            "batch_size": cfg.SOLVER.IMS_PER_BATCH,
            "crop": list(cfg.INPUT.CROP.SIZE),
            "dataset": cfg.DATASETS.TEST[0],
        }
        for run in runs:
            given = {key: getattr(run, key) for key in wanted}
            if other := [f"{key} {value}" for key, value in given.items() if value != wanted[key]]:
                left_out.append(f"{run.folder} is not {project}/{name} at full length: {', '.join(other)}.")
                continue
            others = [entry for entry in found.get(name, []) if entry["seed"] != run.seed]
            found[name] = sorted([*others, _entry(run)], key=lambda entry: entry["seed"])
    if found:
        with atomic_write(path, "w") as stream:
            stream.write(json.dumps(found, indent=1, sort_keys=True) + "\n")
    return left_out


def _entry(run: FinishedRun) -> dict[str, Any]:
    metrics, best = run.metrics_by_dataset[run.dataset], (run.model_extra or {}).get("best")
    reached = {
        "mIoU": metrics.mIoU,
        "mAcc": metrics.mAcc,
        "best mIoU": best["mIoU"] if best else metrics.mIoU,
    }
    return reached | {
        key: getattr(run, key) for key in ("seed", "iterations", "commit", "machine", "finished")
    }


def tables(project: str) -> str:
    """The project's tables as Markdown: the paper's values, and ours below them."""
    folder = _folder(project)
    paper = read_paper(project)
    path = folder / "results.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    lines = []
    for title, rows in paper.tables.items():
        columns = list(dict.fromkeys(method for values in rows.values() for method in values))
        lines += [
            f"## {title}",
            "",
            _line(["pair", "", *(_heading(c, paper.labels) for c in columns)]),
            "|" + "---|" * (len(columns) + 2),
        ]
        for prefix, values in rows.items():
            lines.append(_line([f"`{prefix}`", "paper", *(_paper(values.get(c)) for c in columns)]))
            ours = (found.get(f"{prefix}/{c}", []) if c != TEACHER else [] for c in columns)
            lines.append(_line(["", "ours", *(_ours(runs, paper.metrics) for runs in ours)]))
        lines.append("")
    return "\n".join(lines)


def _heading(method: str, labels: Mapping[str, str]) -> str:
    """The last part of the experiments' names, and what the paper calls it."""
    return f"`{method}` {labels[method]}" if method in labels else method


def _line(cells: list[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def _paper(value: Any) -> str:
    if isinstance(value, list):
        return " / ".join(f"{number:.2f}" for number in value)
    return value if isinstance(value, str) else "" if value is None else f"{value:.2f}"


def _ours(runs: list[dict[str, Any]], metrics: Sequence[str]) -> str:
    """Means over seeds, and how many there are if it is not one."""
    if not runs:
        return ""
    means = " / ".join(f"{np.mean([run[metric] for run in runs]):.2f}" for metric in metrics)
    return means if len(runs) == 1 else f"{means} ({len(runs)} seeds)"


def write_tables(project: str) -> Path:
    """Writes the tables between the marks of the project's README; its path.

    Raises:
        ValueError: the README has not both marks.
    """
    path = _folder(project) / "README.md"
    text = path.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"'{path}' needs the line '{BEGIN}' and below it '{END}', each once.")
    with atomic_write(path, "w") as file:
        before, after = text.partition(BEGIN)[0], text.partition(END)[2]
        file.write(f"{before}{BEGIN}\n\n{tables(project)}\n{END}{after}")
    return path


def _folder(project: str) -> Path:
    return Path("projects") / project
