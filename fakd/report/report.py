"""Writes ``report.md`` and ``report.html`` of a study: what was measured, and under which circumstances."""

from collections.abc import Iterator
from pathlib import Path

from . import class_plots, headline, plots, tables
from .page import Block, Bullets, Code, Heading, Picture, Table, Text, save_page
from .results import Study, read_study


def write_report(study_folder: str | Path, command: str = "") -> Path:
    """Writes ``report.md``, ``report.html`` and ``pictures/`` into the folder of a study.

    Args:
        study_folder: holds ``<run>/seed<k>/result.json``, see :mod:`fakd.report.results`, and maybe
            ``panels.png`` from :func:`fakd.report.panels.draw_panels`.
        command: what a reader types to get these runs again.

    Returns:
        The path of ``report.html``, which needs no other file. ``report.md`` needs ``pictures/`` beside it.

    Raises:
        FileNotFoundError: the folder is not there or holds no finished run.
    """
    folder = Path(study_folder)
    study = read_study(folder)
    title = f"Distillation on {study.datasets[0]}: what the teacher's help was worth"
    blocks = list(study_blocks(study, folder / "panels.png", command))
    return save_page(folder, "report", title, blocks)


def study_blocks(study: Study, panels: Path | None = None, command: str = "") -> Iterator[Block]:
    """All there is to say of a study; see :func:`write_report`."""
    yield Text(headline.lead(study), "lead")
    yield Bullets(headline.sentences(study))
    yield Text(tables.circumstances(study), "note")
    if study.problems:
        count = len(study.problems)
        yield Text(f"**This study has gaps:** {count} listed at the end, under “Missing runs”.", "warning")
    yield from result_blocks(study)
    yield Heading("What it costs")
    yield Table(tables.cost(study))
    yield Text(_cost_note(study), "note")
    if len(study.methods) > 1:
        yield Heading("Method against method")
        yield Table(tables.pairs(study))
        yield Text("mIoU of the first minus that of the second at the same seed; ▲ and ▼ as above.", "note")
    if panels is not None and panels.exists():
        yield Heading("Examples")
        yield Picture("panels", panels.read_bytes(), "Image, truth, and what each run makes of it.")
    yield from _per_class(study)
    if picture := plots.curves(study):
        yield Heading("While training")
        yield Picture(
            "curves", picture, "mIoU at every evaluation: thin lines are seeds, thick ones their mean."
        )
    yield Heading("Every run")
    yield Table(tables.every_run(study))
    yield Heading("Protocol of every run")
    yield Table(tables.protocol(study))
    if study.problems:
        yield Heading("Missing runs")
        yield Bullets(study.problems)
    if command:
        yield Heading("How to get these numbers again")
        yield Code(command)


def result_blocks(study: Study) -> Iterator[Block]:
    """The runs' scores as dots and as tables, with how to read them."""
    if picture := plots.overview(study):
        dots = f"A dot per seed, a bar at the mean; the dotted line is {study.reference}."
        yield Picture("overview", picture, dots)
    yield Heading("Results")
    for dataset in study.datasets:
        if len(study.datasets) > 1:
            yield Text(f"On `{dataset}`:")
        yield Table(tables.summary(study, dataset))
    yield Text(_results_note(study), "note")


def _results_note(study: Study) -> str:
    """How to read :func:`fakd.report.tables.summary`."""
    return (
        f"Percent; mean ± sample standard deviation over seeds. **vs {study.baseline}**: mIoU minus that of "
        f"{study.reference} at the same seed, in points. ▲ better, ▼ worse: the 95% interval of that "
        "difference (t-distribution, from three seeds on) leaves zero out; without a mark, no difference is "
        "shown."
    )


def _per_class(study: Study) -> Iterator[Block]:
    table = plots.class_table(study)
    if not table.empty:
        yield Heading("Per class")
        yield class_plots.per_class(study, table)
        yield Table(tables.classes(table))
        yield Text(
            f"IoU in percent on {study.datasets[0]}, mean over seeds; – where no label has it.", "note"
        )


def _cost_note(study: Study) -> str:
    sizes = sorted({tables.size_text(size) for size in study.runs.get("flops_size", [])})
    return (
        f"GFLOPs count a multiply-add once, for one image of {' or '.join(sizes) or 'unknown size'} "
        "(height x width); they and the parameters are those of the network in use, without the auxiliary "
        "head. s/iteration is the median training step, wall-clock one run with its evaluations; both depend "
        "on what else the machine was doing."
    )
