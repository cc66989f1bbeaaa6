"""Writes the report of finished runs: what was measured, and under which circumstances."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from matplotlib import rc_context

from fakd.config import read_paper
from fakd.errors import message_of
from fakd.files import atomic_write

from . import tables
from .folders import title_of
from .page import Block, Bullets, Code, Heading, LeftOut, Picture, Table, Text, save_page
from .sections import SECTIONS, Context
from .table import RunTable, read_tables


@rc_context({"text.parse_math": False})  # names of classes and runs may hold a $
def write_report(
    paths: Sequence[str | Path],
    output: str | Path,
    *,
    command: str = "",
    baseline: str | Path | None = None,
    num_images: int = 40,
    sections: Sequence[str] = (),
    side_by_side: bool = False,
    dataset: str = "",
    paper: str = "",
    name: str = "report",
    note: str = "",
    allow_plugins: bool = False,
    allow_pickle: bool = False,
) -> Path:
    """Writes ``<name>.md``, ``<name>.html``, ``pictures/``, ``table.csv`` and ``table.tex``.

    Args:
        paths: folders of finished runs or of sweeps, folders that hold some, and files of kept lines.
        output: folder to write into.
        command: that reproduces these numbers, to be shown; "" keeps that of the report before.
        baseline: see :func:`fakd.report.table.read_tables`.
        num_images: how many images of the first test set the networks are shown, from which those are chosen
            where the runs differ most; 0: no pictures of predictions.
        sections: headings of :data:`fakd.report.sections.SECTIONS`; default all.
        side_by_side: instead of the sections, one table with columns for each path, and each pair of a sweep.
        dataset: test set that is reported first; default the first of the runs' configs.
        paper: project whose paper's values are shown beside ours, where the runs' sweep names none.
        name: of the files.
        note: a sentence in front of the sections.
        allow_plugins, allow_pickle: run the PLUGINS and open the pickles that the runs' configs name. Else
            their networks are left out of the pictures.

    Returns:
        The path of the HTML file, which needs no other.

    Raises:
        FileNotFoundError: a path is not there or holds no run, or no run is finished.
        ValueError: the baseline or the dataset is not among the runs, or there is no such section.
    """
    output = Path(output)
    chosen = _chosen(sections)
    command = _remembered(output / "command.txt", command)
    if side_by_side:
        blocks = list(_side_by_side(paths, baseline, dataset))
        title = "Runs side by side"
    else:
        found, problems = _first(*read_tables(paths, baseline), dataset)
        trust = {"allow_plugins": allow_plugins, "allow_pickle": allow_pickle}
        contexts = [Context(x, _paper_values(x, paper, problems), num_images, trust) for x in found]
        blocks = list(_parts(contexts, chosen, problems))
        title = _title(paths, found)
        _write_tables(output, contexts)
    if note:
        blocks.insert(0, Text(note, "note"))
    if command:
        blocks += [Heading("How to get these numbers again"), Code(command)]
    return save_page(output, name, title, blocks)


def _chosen(sections: Sequence[str]) -> list[str]:
    """Headings by their beginnings, in the order of the page."""
    for given in sections:
        if not any(title.lower().startswith(given.lower()) for title in SECTIONS):
            raise ValueError(f"There is no section '{given}'. There are: {', '.join(SECTIONS)}.")
    starts = tuple(given.lower() for given in sections) or ("",)
    return [title for title in SECTIONS if title.lower().startswith(starts)]


def _remembered(file: Path, command: str) -> str:
    if command:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file, "w") as stream:
            stream.write(command)
    return command or (file.read_text() if file.exists() else "")


def _title(paths: Sequence[str | Path], found: list[RunTable]) -> str:
    first = Path(paths[0])
    if len(paths) == 1 and (first / "sweep.json").exists():
        return title_of(first) or f"Sweep {first.name}"
    datasets = " and ".join(dict.fromkeys(table.datasets[0] for table in found))
    return f"Distillation on {datasets}: what distillation gained"


def _parts(contexts: list[Context], chosen: list[str], problems: list[str]) -> Iterator[Block]:
    made: list[Block] = []
    for context in contexts:
        label = context.table.label
        if len(contexts) > 1:
            made.append(Heading(label or context.table.datasets[0]))
        level = 2 + (len(contexts) > 1)
        slug = re.sub(r"\W+", "_", label) if len(contexts) > 1 else ""
        for title in chosen:
            made += _section(context, title, level, slug)
    left_out = [line for context in contexts for line in context.left_out]
    if problems or left_out:
        told = f"**There are gaps:** {len(problems) + len(left_out)} listed at the end, under “Left out”."
        yield Text(told, "warning")
    yield from made
    if problems or left_out:
        yield Heading("Left out")
        yield Bullets([*problems, *left_out])


def _section(context: Context, title: str, level: int, slug: str) -> Iterator[Block]:
    try:
        blocks = list(SECTIONS[title](context))
    except LeftOut as reason:
        where = f" ({context.table.label})" if slug else ""
        context.left_out.append(f"{title}{where}, because {reason}")
        return
    if blocks and title != "Summary":
        yield Heading(title, level)
    for block in blocks:
        if isinstance(block, Picture) and slug:
            block = Picture(f"{block.name}_{slug}", block.png, block.caption, block.is_photo)
        yield block


def _paper_values(table: RunTable, project: str, problems: list[str]) -> tables.PaperValues:
    """What a paper reports for the table's pair: the sweep's, or that of the students' config file."""
    rows = {row.partition("/")[::2] for row in table.runs["paper"] if row}
    if not rows and project:
        students = table.runs[~table.runs["run"].isin(table.teachers)]
        files = {Path(file) for file in students["config_file"].dropna()}
        rows = {(project, f"{file.parent.name}/{file.stem}") for file in files}
    if len(rows) != 1:
        return {}
    ((project, pair),) = rows
    try:
        return read_paper(project).values(pair)
    except (OSError, ValueError, KeyError) as error:
        problems.append(f"The paper's values, because they cannot be read: {message_of(error)}")
        return {}


def _write_tables(output: Path, contexts: list[Context]) -> None:
    numbers = pd.concat([tables.numbers(each.table, each.paper) for each in contexts])
    texts = [
        (each.table, tables.summary(each.table, each.table.datasets[0], each.paper)) for each in contexts
    ]
    if len(texts) > 1:
        texts = [(table, each.assign(pair=table.label)) for table, each in texts]
    shown = pd.concat([each for _, each in texts]).fillna("")
    output.mkdir(parents=True, exist_ok=True)
    for file, content in (("table.csv", numbers.to_csv(index=False)), ("table.tex", tables.latex(shown))):
        with atomic_write(output / file, "w") as stream:
            stream.write(content)


def _first(found: list[RunTable], problems: list[str], dataset: str) -> tuple[list[RunTable], list[str]]:
    """The tables that have a test set, with it in front of their others; all as they are without one."""
    if not dataset:
        return found, problems
    known = sorted({name for table in found for name in table.datasets})
    if dataset not in known:
        raise ValueError(f"No run was tested on '{dataset}'. Tested on: {', '.join(known)}.")
    chosen = [
        replace(table, datasets=[dataset, *(name for name in table.datasets if name != dataset)])
        for table in found
        if dataset in table.datasets
    ]
    without = [table.label for table in found if dataset not in table.datasets]
    return chosen, problems + [f"{label or 'Runs'}: not tested on {dataset}." for label in without]


def _side_by_side(paths: Sequence[str | Path], baseline: str | Path | None, dataset: str) -> Iterator[Block]:
    columns: list[tuple[str, RunTable]] = []
    problems: list[str] = []
    for path in paths:
        try:
            found, told = _first(*read_tables([path], baseline), dataset)
        except ValueError as error:  # this path has no such baseline or test set
            if path == paths[-1] and not columns:
                raise
            problems.append(f"{path}: {error}")
            continue
        title = _title([path], found) if (Path(path) / "sweep.json").exists() else Path(path).stem
        columns += [(f"{title} ({table.label})" if table.label else title, table) for table in found]
        problems += told
    yield Table(tables.side_by_side(columns))
    sets = " and ".join(dict.fromkeys(f"`{table.datasets[0]}`" for _, table in columns))
    yield Text(
        f"mIoU in percent on {sets}, mean ± sample standard deviation over seeds. **vs**: minus that of the "
        "baseline at the same seed; ▲ better, ▼ worse: from three seeds on, its 95% interval leaves zero "
        "out. **Bold**: above every other run of its column in that way; the teacher does not compete.",
        "note",
    )
    if any(len(t.by_seed(t.baseline, t.datasets[0])) == 1 for _, t in columns):
        yield Text("**A number without ± rests on a single seed, which proves little.**", "warning")
    if problems:
        yield Heading("Left out")
        yield Bullets(problems)
