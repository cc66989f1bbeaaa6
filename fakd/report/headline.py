"""The summary of a report: sentences that follow from the numbers only."""

import pandas as pd

from .statistics import MIN_SEEDS, Difference, interval_text, mean_std, seeds_text, signed
from .table import STUDENT, RunTable


def lead(table: RunTable) -> str:
    """The main conclusion in one sentence."""
    dataset = table.datasets[0]
    found = [d for d in (table.versus(method, dataset) for method in table.methods) if d is not None]
    if not found:
        return f"Nothing can be compared yet: that takes {table.reference} and a method at the same seed."
    if max(d.num_seeds for d in found) == 1:
        return (
            "**This is one seed, and a single seed proves little:** "
            "another seed may turn any difference below around."
        )
    if max(d.num_seeds for d in found) < MIN_SEEDS:
        return "**These are two seeds, too few to tell a method's gain from seed variance.**"
    gains = sum(d.is_shown and d.mean > 0 for d in found)
    losses = sum(d.is_shown and d.mean < 0 for d in found)
    methods = "1 method" if len(found) == 1 else f"{len(found)} methods"
    return (
        f"**Of {methods}, {gains} did better than {table.reference} and {losses} worse, beyond seed "
        f"variance; for {len(found) - gains - losses} no difference is shown** (mIoU; a difference "
        "is shown where the 95% interval of the paired difference leaves zero out)."
    )


def sentences(table: RunTable) -> list[str]:
    """A sentence per run on the first test set, then one per further test set."""
    dataset, *others = table.datasets
    student = table.by_seed(table.baseline, dataset)
    teacher = table.by_seed(table.teachers[0], dataset) if len(table.teachers) == 1 else student[:0]
    told = [
        f"The **{name}** reaches {_reached(table.by_seed(name, dataset))} on `{dataset}`."
        for name in table.teachers
    ]
    if len(student):
        name = f"The **{STUDENT} alone**" if table.baseline == STUDENT else f"**{table.baseline}**"
        told.append(f"{name} reaches {_reached(student)}{_below_teacher(student, teacher)}.")
    for method in table.methods:
        values = table.by_seed(method, dataset)
        if len(values):
            difference = table.versus(method, dataset)
            verdict = _verdict(difference, table.reference) + _closed(difference, student, teacher)
            told.append(f"**{method}** reaches {_reached(values)}{verdict}.")
    return told + [_further(table, name) for name in others]


def _reached(values: pd.Series) -> str:
    return f"{mean_std(values)} mIoU ({seeds_text(len(values))})"


def _below_teacher(student: pd.Series, teacher: pd.Series) -> str:
    if teacher.empty:
        return ""
    gap = teacher.mean() - student.mean()
    if gap > 0:
        return f", {gap:.2f} points below the teacher"
    return f", {-gap:.2f} points above the teacher: there is little to learn from such a teacher"


def _verdict(difference: Difference | None, reference: str) -> str:
    if difference is None:
        return f"; no seed in common with {reference}, so nothing can be compared"
    text = f", {abs(difference.mean):.2f} points {'above' if difference.mean > 0 else 'below'} {reference}"
    if signed(difference.mean) == signed(0):
        text = f", within 0.01 points of {reference}"
    if difference.num_seeds == 1:
        return text + " at one seed"
    if difference.num_seeds < MIN_SEEDS:
        return text + f" (± {difference.std:.2f} over two seeds)"
    shown = "beyond seed variance" if difference.is_shown else "no difference is shown"
    return text + f" ({interval_text(difference)}): {shown}"


def _closed(difference: Difference | None, student: pd.Series, teacher: pd.Series) -> str:
    """The share of the gap to the teacher; only for a shown gain, because it reads as a strong claim."""
    if difference is None or not difference.is_shown or difference.mean <= 0 or teacher.empty:
        return ""
    gap = teacher.mean() - student.mean()
    return f", {100 * difference.mean / gap:.0f}% of the distance to the teacher" if gap > 0 else ""


def _further(table: RunTable, dataset: str) -> str:
    parts = []
    for run in table.names:
        values, difference = table.by_seed(run, dataset), table.versus(run, dataset)
        if len(values):
            parts.append(f"{run} {mean_std(values)}" + (f" ({_brief(difference)})" if difference else ""))
    return f"On `{dataset}`: {', '.join(parts)}."


def _brief(difference: Difference) -> str:
    return signed(difference.mean) if difference.num_seeds < MIN_SEEDS else interval_text(difference)
