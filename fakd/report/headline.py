"""What a study found, in plain words that follow from the numbers and from nothing else."""

import pandas as pd

from .results import STUDENT, TEACHER, Study
from .statistics import (
    MIN_SEEDS,
    Difference,
    interval_text,
    mean_std,
    paired_difference,
    seeds_text,
)


def lead(study: Study) -> str:
    """The one sentence to read."""
    dataset = study.datasets[0]
    student = study.by_seed(study.baseline, dataset)
    differences = [paired_difference(study.by_seed(m, dataset), student) for m in study.methods]
    found = [d for d in differences if d is not None]
    if not found:
        return f"Nothing can be compared yet: that takes {study.reference} and a method at the same seed."
    if max(d.num_seeds for d in found) == 1:
        return (
            "**This is one seed, and a single seed proves little:** "
            "another seed may turn any difference below around."
        )
    if max(d.num_seeds for d in found) < MIN_SEEDS:
        return "**These are two seeds, too few to tell a method's gain from the luck of the seed.**"
    gains = sum(d.is_shown and d.mean > 0 for d in found)
    losses = sum(d.is_shown and d.mean < 0 for d in found)
    methods = "1 method" if len(found) == 1 else f"{len(found)} methods"
    return (
        f"**Of {methods}, {gains} did better than {study.reference} and {losses} worse, by more than "
        f"the luck of the seeds; for {len(found) - gains - losses} no difference is shown** "
        "(mIoU, 95% interval of the paired difference)."
    )


def sentences(study: Study) -> list[str]:
    """A sentence per run on the primary test set, then one per further test set."""
    dataset, *others = study.datasets
    teacher, student = study.by_seed(TEACHER, dataset), study.by_seed(study.baseline, dataset)
    told = []
    if len(teacher):
        told.append(f"The **teacher** reaches {_reached(teacher)} on `{dataset}`.")
    if len(student):
        name = "The **student without help**" if study.baseline == STUDENT else f"**{study.baseline}**"
        told.append(f"{name} reaches {_reached(student)}{_below_teacher(student, teacher)}.")
    for method in study.methods:
        values = study.by_seed(method, dataset)
        if len(values):
            difference = paired_difference(values, student)
            closed = _closed(difference, student, teacher)
            told.append(
                f"**{method}** reaches {_reached(values)}{_verdict(difference, study.reference)}{closed}"
            )
    return told + [_further(study, name) for name in others]


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
        return f"; no seed in common with {reference}, so nothing can be compared."
    side = "above" if difference.mean > 0 else "below"
    text = f", {abs(difference.mean):.2f} points {side} {reference}"
    if difference.num_seeds == 1:
        return text + " at the one seed they share, which proves little."
    if difference.num_seeds < MIN_SEEDS:
        return text + f" (± {difference.std:.2f} over two seeds, too few for an interval)."
    interval = f"95% interval {interval_text(difference)} over {seeds_text(difference.num_seeds)}"
    if difference.is_shown:
        return text + f" ({interval}: more than the luck of the seeds)."
    return text + f" ({interval}, which includes zero: no difference is shown)."


def _closed(difference: Difference | None, student: pd.Series, teacher: pd.Series) -> str:
    """Only for a gain that is shown: a share of the gap sounds like more than it is."""
    if difference is None or not difference.is_shown or difference.mean <= 0 or teacher.empty:
        return ""
    gap = teacher.mean() - student.mean()
    return f" That is {100 * difference.mean / gap:.0f}% of the distance to the teacher." if gap > 0 else ""


def _further(study: Study, dataset: str) -> str:
    student = study.by_seed(study.baseline, dataset)
    parts = []
    for run in study.names:
        values = study.by_seed(run, dataset)
        difference = paired_difference(values, student) if run in study.methods else None
        if len(values):
            parts.append(f"{run} {mean_std(values)}" + (f" ({_brief(difference)})" if difference else ""))
    return f"On `{dataset}`: {', '.join(parts)}."


def _brief(difference: Difference) -> str:
    if difference.num_seeds < MIN_SEEDS:
        return f"{difference.mean:+.2f}".replace("-", "−")
    return f"{interval_text(difference)}"
