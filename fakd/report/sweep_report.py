"""The report of a sweep, from the JSON lines its trials wrote and from nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fakd.config import read_paper
from fakd.files import atomic_write
from fakd.report.page import Block, Code, Heading, Picture, Table, Text, save_page, to_markdown
from fakd.report.report import study_blocks
from fakd.report.results import STUDENT, TEACHER, Study, make_study
from fakd.sweep.events import FOLDER, read_lines

from . import table as cells
from . import value_plots as curves
from .statistics import difference_text, mean_std, paired_difference

SIDE_BY_SIDE_NOTE = (
    "mIoU in percent, mean ± sample standard deviation over seeds. **vs student**: minus that of the student "
    "without help at the same seed; ▲ better, ▼ worse: from three seeds on, its 95% interval leaves zero out."
)


def write_sweep_report(output: str | Path, command: str = "") -> Path:
    """Writes ``report.md``, ``report.html``, ``pictures/``, ``table.csv`` and ``table.tex`` for a sweep.

    Args:
        output: folder of the sweep.
        command: what a reader types to get these runs again; "" takes that of the report before.

    Returns:
        The path of ``report.html``.

    Raises:
        FileNotFoundError: no sweep lies there, or none of its runs is finished.
    """
    output = Path(output)
    spec = _spec_of(output)
    studies = read_sweep(output)
    known = output / "command.txt"
    if command:
        _write(known, command.encode())
    elif known.exists():
        command = known.read_text()
    table = pd.concat(
        [cells.table(study, pair, _paper_values(spec, pair)) for pair, study in studies.items()]
    )
    blocks = list(_blocks(spec, studies, table, _changes(output), command))
    title = spec["title"] or f"Sweep {output.name}"
    _write(output / "table.csv", table.to_csv(index=False).encode())
    _write(output / "table.tex", cells.latex(table).encode())
    return save_page(output, "report", title, blocks)


def _paper_values(spec: dict[str, Any], pair: str) -> dict[str, dict[str, float]]:
    """What the paper of a sweep reports for a pair, by run and metric."""
    row = spec["pairs"][pair].get("paper", "")
    return read_paper(spec["paper"]).values(row) if row else {}


def _changes(output: Path) -> pd.DataFrame:
    """Of every trial that went on from another one's checkpoint: who trained its weights, and with what."""
    rows = []
    for path in sorted((output / FOLDER).glob("*.jsonl")):
        starts = [line for line in read_lines(path) if line["event"] == "start"]
        schedule = starts[-1].get("schedule", []) if starts else []
        for part in schedule if len(schedule) > 1 else ():
            row = {key: starts[-1][key] for key in ("pair", "run", "seed")}
            values = ", ".join(f"{key}={value:g}" for key, value in part["values"].items())
            rows.append(row | {"from": part["iteration"], "trained as": part["run"], "with": values})
    return pd.DataFrame(rows)


def _spec_of(output: Path) -> dict[str, Any]:
    if not (output / "sweep.json").is_file():
        raise FileNotFoundError(f"No sweep in '{output}': there is no sweep.json.")
    return json.loads((output / "sweep.json").read_text())


def read_sweep(output: Path) -> dict[str, Study]:
    """A study per pair; a teacher counts for every pair.

    Raises:
        FileNotFoundError: no run is finished.
    """
    pairs: dict[str, list[tuple[dict, list[dict]]]] = {}
    teachers: list[tuple[dict, list[dict]]] = []
    for path in sorted((output / FOLDER).glob("*.jsonl")):
        lines = list(read_lines(path))
        starts = [line for line in lines if line["event"] == "start"]
        if starts:
            place = starts[-1]
            group = teachers if place["run"] == TEACHER else pairs.setdefault(place["pair"], [])
            group.append((place, lines))
    studies = {pair: _study(_teachers_of(runs, teachers) + runs) for pair, runs in pairs.items()}
    found = {pair: study for pair, study in studies.items() if study is not None}
    if not found:
        raise FileNotFoundError(f"No run of the sweep in '{output}' is finished yet.")
    return found


def side_by_side(sweeps: Mapping[str, Mapping[str, Study]]) -> pd.DataFrame:
    """What several sweeps with the same runs found, a row per run and two columns per sweep and pair.

    Args:
        sweeps: of :func:`read_sweep`, by the title of their columns.

    Returns:
        Texts: mIoU, its difference to the student without help, and the iterations where students differ in
        them. The teacher and the student come first, then the runs by their mIoU in the first sweep.
    """
    columns = []
    for title, studies in sweeps.items():
        for pair, study in studies.items():
            dataset = study.datasets[0]
            values = {name: study.by_seed(name, dataset) for name in study.names}
            lengths = study.runs.groupby("run")["iterations"].mean()
            columns.append((f"{title} ({pair})" if pair else title, values, lengths))
    first = columns[0][1]

    def place(name: str) -> tuple[bool, bool, float]:
        return name != TEACHER, name != STUDENT, -first[name].mean() if name in first else math.inf

    runs = sorted(dict.fromkeys(name for _, values, _ in columns for name in values), key=place)
    table = pd.DataFrame({"run": runs})
    for title, values, lengths in columns:
        means = [mean_std(values[run]) if run in values else "–" for run in runs]
        differences = [
            difference_text(paired_difference(values[run], values[STUDENT]))
            if run in values and run not in (TEACHER, STUDENT) and STUDENT in values
            else ""
            for run in runs
        ]
        table.insert(table.shape[1], title, means)
        table.insert(table.shape[1], "vs student", differences, allow_duplicates=True)
        if lengths.drop(TEACHER, errors="ignore").nunique() > 1:
            iterations = [f"{lengths[run]:.0f}" if run in lengths else "–" for run in runs]
            table.insert(table.shape[1], "iterations", iterations, allow_duplicates=True)
    return table


def write_side_by_side(outputs: Sequence[str | Path], path: str | Path, command: str = "") -> Path:
    """Writes one Markdown table of several sweeps; see :func:`side_by_side`.

    Args:
        outputs: folders of sweeps.
        path: of the file.
        command: what a reader types to get the file again.

    Returns:
        The path.

    Raises:
        FileNotFoundError: as :func:`read_sweep`.
    """
    titles = [_spec_of(Path(output))["title"] or Path(output).name for output in outputs]
    found = {title: read_sweep(Path(output)) for title, output in zip(titles, outputs, strict=True)}
    studies = [study for sweep in found.values() for study in sweep.values()]
    blocks: list[Block] = [Table(side_by_side(found)), Text(SIDE_BY_SIDE_NOTE, "note")]
    if any(len(study.by_seed(STUDENT, study.datasets[0])) == 1 for study in studies):
        blocks.append(Text("**A number without ± rests on a single seed, which proves little.**", "warning"))
    if command:
        blocks += [Heading("How to get this table again"), Code(command)]
    _write(Path(path), to_markdown("Sweeps side by side", blocks).encode())
    return Path(path)


def _teachers_of(runs: list[tuple[dict, list[dict]]], teachers: list) -> list:
    """The teachers that these runs learn from."""
    wanted = {place.get("teacher") for place, _ in runs}
    return [each for each in teachers if each[0]["folder"] in wanted]


def _study(runs: list[tuple[dict, list[dict]]]) -> Study | None:
    results, points, problems = [], [], []
    for place, lines in runs:
        key = {"run": place["run"], "seed": place["seed"]}
        done = [line["result"] for line in lines if line["event"] == "result"]
        # A resumed run repeats iterations: the later line is the one that counts.
        reached = {line["iteration"]: line for line in lines if line["event"] == "evaluation"}
        if done:
            by_set = done[-1]["metrics_by_dataset"]
            values = place["values"] if len(place.get("schedule", ())) < 2 else {}  # has no one value
            results.append({**done[-1], **key, "metrics_by_dataset": by_set, "values": values})
            points += [
                {**key, "iteration": i, "mIoU": reached[i]["mIoU"], "seconds": reached[i]["seconds"]}
                for i in sorted(reached)
            ]
        else:
            problems.append(f"{place['run']}, seed {place['seed']}: {_why(lines)}")
    return make_study(results, points, problems) if results else None


def _why(lines: list[dict[str, Any]]) -> str:
    end = lines[-1]
    if "error" in end:
        return f"{end['event'].replace('_', ' ')}: {end['error']}"
    reached = max((line.get("iteration", 0) for line in lines), default=0)
    state = "stopped early by the scheduler" if end["event"] == "stopped" else "not finished"
    return f"{state} after {reached} iterations."


def _blocks(
    spec: dict, studies: dict[str, Study], table: pd.DataFrame, changes: pd.DataFrame, command: str
) -> Iterator[Block]:
    yield Heading("The table")
    yield Table(cells.shown(table))
    yield Text(cells.NOTE, "note")
    if (table["seeds"] == 1).any():
        yield Text("**Cells marked “1 seed” rest on a single seed, which proves little.**", "warning")
    if len(changes):
        yield Heading("Values that changed on the way")
        yield Table(changes)
        yield Text("A run's weights went through all of its rows, from the first to the last.", "note")
    for pair, study in studies.items():
        label = f" ({pair})" if pair else ""
        if picture := curves.by_value(study):
            yield Heading(f"Over the values of a key{label}")
            yield Picture(
                f"values{_slug(pair)}", picture, "mIoU over a config key; a bar per standard deviation."
            )
        if picture := curves.over_time(study):
            yield Heading(f"mIoU over time{label}")
            yield Picture(
                f"time{_slug(pair)}", picture, "mIoU over seconds of training; the mean over seeds."
            )
    for pair, study in studies.items():
        if pair:
            yield Heading(f"Pair {pair}")
        for block in study_blocks(study):
            yield _renamed(block, pair)
    if command:
        yield Heading("How to get these numbers again")
        yield Code(command)


def _renamed(block: Block, pair: str) -> Block:
    if isinstance(block, Picture) and pair:
        return Picture(f"{block.name}{_slug(pair)}", block.png, block.caption)
    return block


def _slug(pair: str) -> str:
    return f"_{pair}" if pair else ""


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)
