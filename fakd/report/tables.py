"""The tables of a report: numbers for a file, and texts ready to print."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from .finished_run import METRICS
from .statistics import (
    difference_text,
    difference_with_interval,
    interval_text,
    mean_std,
    number,
    paired_difference,
    signed,
    winner,
)
from .table import STUDENT, TEACHER, RunTable

NOTHING = "–"

# By run and metric, what a paper reports.
PaperValues = Mapping[str, Mapping[str, float]]

# column -> (field of result.json, how its mean over runs is printed)
_COST: dict[str, tuple[str, Callable[[float], str]]] = {
    "parameters": ("params", lambda count: f"{count / 1e6:.3g} M"),
    "GFLOPs": ("gflops", lambda count: f"{count:.3g}"),
    "s/iteration": ("seconds_per_iteration", lambda seconds: f"{seconds:.3f}"),
    "wall-clock": ("wall_clock", lambda seconds: f"{seconds / 60:.1f} min"),
    "peak memory": ("peak_memory_mb", lambda size: f"{size:.0f} MB"),
}


def numbers(table: RunTable, paper: PaperValues) -> pd.DataFrame:
    """A row of numbers per run on the first test set, seeds taken together."""
    dataset, reached = table.datasets[0], _equal(table, table.datasets[0])
    rows = []
    for name in table.names:
        values, runs = table.by_seed(name, dataset), table.runs[table.runs["run"] == name]
        difference = table.versus(name, dataset)
        rows.append(
            {
                "pair": table.label,
                "run": name,
                "seeds": len(runs),
                "mIoU": values.mean(),
                "std": values.std(),
                **{metric: table.by_seed(name, dataset, metric).mean() for metric in METRICS[1:]},
                f"vs {table.baseline}": difference.mean if difference else math.nan,
                "95% interval": interval_text(difference),
                "p": difference.p if difference else math.nan,
                **{column: by_run.get(name, values[:0]).mean() for column, by_run in reached.items()},
                "iterations": _mean(runs, "iterations"),
                "minutes": _mean(runs, "wall_clock") / 60,
                "memory MB": _mean(runs, "peak_memory_mb"),
                **{f"paper {metric}": paper.get(name, {}).get(metric, math.nan) for metric in METRICS[:2]},
            }
        )
    return pd.DataFrame(rows)


def summary(table: RunTable, dataset: str, paper: PaperValues | None = None) -> pd.DataFrame:
    """A row of texts per run on one test set, seeds taken together; the winners of a column are bold."""
    columns: dict[str, Mapping[str, pd.Series]] = {
        metric: {name: table.by_seed(name, dataset, metric) for name in table.names} for metric in METRICS
    }
    columns |= {key: x for key, x in _equal(table, dataset).items() if _says_more(x, columns["mIoU"])}
    best = {
        key: winner({name: by_run[name] for name in by_run if name not in table.teachers})
        for key, by_run in columns.items()
    }
    rows = []
    for name in table.names:
        texts = {key: mean_std(by_run[name]) if name in by_run else "" for key, by_run in columns.items()}
        texts = {key: f"**{text}**" if best[key] == name else text for key, text in texts.items()}
        difference, is_method = table.versus(name, dataset), name in table.methods
        rows.append(
            {
                "run": name,
                "seeds": str(int((table.runs["run"] == name).sum())),
                "mIoU": texts.pop("mIoU"),
                f"vs {table.baseline}": difference_text(difference) if is_method else "",
                "95% interval": interval_text(difference) if is_method else "",
                "p": number(difference.p if difference else math.nan, 3) if is_method else "",
                **texts,
                **{
                    f"paper {metric}": number(paper[name][metric])
                    for metric in METRICS
                    if paper and metric in paper.get(name, {})
                },
            }
        )
    texts = pd.DataFrame(rows).fillna("")
    return texts.loc[:, [c in ("run", *METRICS) or not texts[c].isin([NOTHING, ""]).all() for c in texts]]


def latex(texts: pd.DataFrame) -> str:
    """A table of texts as a LaTeX ``tabular`` that needs no package."""
    special = {"%": r"\%", "_": r"\_", "±": r"$\pm$", "–": "--", "−": "$-$", "&": r"\&", "▲": "", "▼": ""}

    def text(cell: object) -> str:
        bare = str(cell).removeprefix("**").removesuffix("**")
        escaped = "".join(special.get(character, character) for character in bare)
        return escaped if bare == str(cell) else rf"\textbf{{{escaped}}}"

    lines = [" & ".join(map(text, row)) + r" \\" for row in [texts.columns, *texts.to_numpy()]]
    body = "\n".join([r"\hline", lines[0], r"\hline", *lines[1:], r"\hline"])
    align = "".join("l" if name in ("pair", "run") else "r" for name in texts)
    return f"\\begin{{tabular}}{{{align}}}\n{body}\n\\end{{tabular}}\n"


def side_by_side(columns: Sequence[tuple[str, RunTable]]) -> pd.DataFrame:
    """What several tables with the same runs found, a row per run and two columns or more per table.

    Args:
        columns: a title and a table each.

    Returns:
        Texts: mIoU, the winner's in bold, its difference to the baseline, and the iterations where students
        differ in them. Teacher and student come first, then the runs by their mIoU in the first table.
    """
    values = [{name: table.by_seed(name, table.datasets[0]) for name in table.names} for _, table in columns]

    def place(name: str) -> tuple[bool, bool, float]:
        return name != TEACHER, name != STUDENT, -values[0][name].mean() if name in values[0] else math.inf

    runs = sorted(dict.fromkeys(name for by_run in values for name in by_run), key=place)
    texts = pd.DataFrame({"run": runs})
    for (title, table), by_run in zip(columns, values, strict=True):
        lengths = {name: _mean(table.runs[table.runs["run"] == name], "iterations") for name in by_run}
        differences = {name: difference_text(table.versus(name, table.datasets[0])) for name in table.methods}
        reached = {name: mean_std(column) for name, column in by_run.items()}
        if best := winner({name: by_run[name] for name in by_run if name not in table.teachers}):
            reached[best] = f"**{reached[best]}**"
        added = {
            title: [reached.get(name, NOTHING) for name in runs],
            f"vs {table.baseline}": [differences.get(name, "") for name in runs],
        }
        if len({lengths[name] for name in by_run if name not in table.teachers}) > 1:
            added["iterations"] = [number(lengths.get(name, math.nan), 0) for name in runs]
        for column, cells in added.items():
            texts.insert(texts.shape[1], column, cells, allow_duplicates=True)
    return texts


def cost(table: RunTable) -> pd.DataFrame:
    """A row per run: size and effort, in the mean over seeds."""
    return pd.DataFrame({"run": n} | _cost(table.runs[table.runs["run"] == n]) for n in table.names)


def every_run(table: RunTable) -> pd.DataFrame:
    """A row per run and seed: what it reached, a group of columns per test set, and what it cost."""
    rows = []
    for name in table.names:
        for row in table.of(name):
            texts = {"run": name, "seed": str(row["seed"])}
            for dataset in table.datasets:
                suffix = f" ({dataset})" if len(table.datasets) > 1 else ""
                at = {m: table.by_seed(name, dataset, m).filter([row["seed"]]) for m in METRICS}
                difference = paired_difference(at["mIoU"], table.by_seed(table.baseline, dataset))
                versus = difference_text(difference) if name in table.methods else ""
                texts |= {f"mIoU{suffix}": mean_std(at["mIoU"]), f"vs {table.baseline}{suffix}": versus}
                texts |= {f"{m}{suffix}": mean_std(at[m]) for m in METRICS[1:]}
            rows.append(texts | _cost(pd.DataFrame([row])))
    return pd.DataFrame(rows)


def pairs(table: RunTable) -> pd.DataFrame:
    """Every method against every other, by mIoU on the first test set."""
    dataset, rows = table.datasets[0], []
    for second, first in combinations(table.methods, 2):
        difference = paired_difference(table.by_seed(first, dataset), table.by_seed(second, dataset))
        shared = str(difference.num_seeds) if difference else "0"
        rows.append((f"{first} − {second}", difference_text(difference), interval_text(difference), shared))
    return pd.DataFrame(rows, columns=["pair", "difference", "95% interval", "shared seeds"])


def classes(table: RunTable) -> pd.DataFrame:
    """Mean IoU over seeds on the first test set: a row per class as in the dataset, a column per run."""
    iou = table.iou[table.iou["dataset"] == table.datasets[0]]
    means = iou.pivot_table(
        index="class", columns="run", values="IoU", aggfunc="mean", sort=False, dropna=False
    )
    return means.astype(float)[[n for n in table.names if n in means]]


def class_texts(table: RunTable, shares: pd.Series | None) -> pd.DataFrame:
    """A row per class: IoU of every run and, for a method, its gain, with an interval from three seeds on.

    Args:
        shares: by class, in percent of all labelled pixels.
    """
    means = classes(table)
    iou = table.iou[table.iou["dataset"] == table.datasets[0]]
    by_seed = {key: rows.set_index("seed")["IoU"].dropna() for key, rows in iou.groupby(["run", "class"])}
    columns: dict[str, list[str]] = {"class": list(means.index)}
    if shares is not None:
        columns["% of pixels"] = [f"{share:.3g}" for share in shares]
    columns |= {name: [mean_std(by_seed[name, c]) for c in means.index] for name in means}
    for name in [n for n in table.methods if n in means] if table.baseline in means else ():
        differences = [paired_difference(by_seed[name, c], by_seed[table.baseline, c]) for c in means.index]
        gained = means[name] - means[table.baseline]
        columns[f"{name} − {table.baseline}"] = [
            difference_with_interval(d) if d else NOTHING if pd.isna(g) else signed(g)
            for d, g in zip(differences, gained, strict=True)
        ]
    return pd.DataFrame(columns)


def protocol(table: RunTable) -> pd.DataFrame:
    """A row per run and seed: everything needed to know what was run, and where."""
    return pd.DataFrame(
        {
            "run": name,
            "seed": str(row["seed"]),
            "config": _shown(_relative(row["config_file"])),
            "trained on": _shown(row["train_dataset"]),
            "iterations": _shown(row["iterations"]),
            "batch": _shown(row["batch_size"]),
            "crop": size_text(row["crop"]),
            **{key: _shown(row[key]) for key in ("commit", "machine", "versions", "finished")},
        }
        for name in table.names
        for row in table.of(name)
    )


def changes(table: RunTable) -> pd.DataFrame:
    """Of every run that went on from another one's checkpoint: who trained its weights, and with what."""
    return pd.DataFrame(
        {
            "run": name,
            "seed": row["seed"],
            "from": part["iteration"],
            "trained as": part["run"],
            "with": ", ".join(f"{key}={_setting(value)}" for key, value in part["values"].items()),
        }
        for name in table.names
        for row in table.of(name)
        for part in (row["schedule"] if len(row["schedule"]) > 1 else ())
    )


def circumstances(table: RunTable) -> str:
    """What all runs share in one line; where they differ, every value."""

    def values(key: str, text: Callable[[Any], str] = _shown) -> str:
        return " or ".join(dict.fromkeys(text(value) for value in table.runs[key]))

    return (
        f"Trained on {values('train_dataset')}, {values('iterations')} iterations of {values('batch_size')} "
        f"images, crop {values('crop', size_text)}. Commit {values('commit')}, on {values('machine')}."
    )


def size_text(size: Any) -> str:
    """ "96x128" of (height, width)."""
    return "x".join(str(n) for n in size) if isinstance(size, (list, tuple)) else NOTHING


def are_packed(table: RunTable) -> bool:
    """Whether some students shared a process, and so its time."""
    return bool((table.runs["packed"] > 1).any())


def may_share_cores(table: RunTable) -> bool:
    """Whether two students trained at the same time on processors of the same name."""
    runs = table.runs[table.runs["machine"].astype(str).str.contains("CPU")]
    ends = pd.to_datetime(runs["finished"], utc=True)
    seconds = pd.to_numeric(runs["wall_clock"], errors="coerce") - 2  # ends are known to the second
    spans = pd.DataFrame({"on": runs["machine"], "begin": ends - pd.to_timedelta(seconds, "s"), "end": ends})
    spans = spans.dropna().sort_values(["begin", "end"])
    return bool((spans["begin"] < spans.groupby("on")["end"].shift()).any())


def _equal(table: RunTable, dataset: str) -> dict[str, dict[str, pd.Series]]:
    """Column -> run -> mIoU by seed at the last evaluation within what all students had."""
    curves = table.curves[~table.curves["run"].isin(table.teachers)]
    if dataset != table.curve_dataset:
        curves = curves[:0]
    limits = curves.groupby(["run", "seed"])[["iteration", "seconds"]].max().min()
    if are_packed(table):
        limits["seconds"] = math.nan  # their seconds are also those of the others in the pack
    found: dict[str, dict[str, pd.Series]] = {}
    for column, axis in (("equal iterations", "iteration"), ("equal time", "seconds")):
        within = curves[curves[axis] <= limits[axis]].sort_values(axis)
        last = within.groupby(["run", "seed"])["mIoU"].last()
        found[column] = {
            name: last[name]
            for name in last.index.unique("run")
            if len(last[name]) == curves.loc[curves["run"] == name, "seed"].nunique()
        }
    return found


def _says_more(equal: Mapping[str, pd.Series], final: Mapping[str, pd.Series]) -> bool:
    """Whether the values are there, and are not those that the runs ended with."""
    return any(abs(values.mean() - final[name].mean()) > 5e-3 for name, values in equal.items())


def _mean(runs: pd.DataFrame, key: str) -> float:
    return pd.to_numeric(runs[key], errors="coerce").mean()


def _cost(runs: pd.DataFrame) -> dict[str, str]:
    means = {label: _mean(runs, key) for label, (key, _) in _COST.items()}
    return {label: NOTHING if math.isnan(mean) else _COST[label][1](mean) for label, mean in means.items()}


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    if value is None or value == "" or value != value:
        return NOTHING
    # pandas turns integers with missing values into floats
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def _setting(value: Any) -> str:
    """A config key's value, which may be a text, such as a name, or 1e-3, which yaml takes for one."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return f"{value:g}" if is_number else str(value)


def _relative(path: object) -> object:
    """A file's path from here, if it lies below: workers of a sweep write whole paths."""
    if isinstance(path, str) and Path(path).is_relative_to(Path.cwd()):
        return str(Path(path).relative_to(Path.cwd()))
    return path
