"""The page that shows what finished runs do differently: ``compare.html`` and its pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from detectron2.config import CfgNode
from matplotlib import colormaps
from torch import nn
from tqdm import tqdm

from fakd.config import NO_RECIPE, load_config
from fakd.engine import load_trained
from fakd.engine.cli import message_of
from fakd.modeling.build import build_teacher

from . import class_plots, headline, log_plots, plots, tables
from .networks import Scenes, activation, enlarged, load_scenes, predictions
from .page import Block, Bullets, Code, Heading, Picture, Table, Text, save_page
from .panels import draw_panels
from .report import result_blocks
from .results import TEACHER
from .run_groups import FinishedRun, RunGroups, read_groups
from .statistics import mean_std, signed
from .tiles import Tile, write_tiles

_PAIRS = 15  # of classes whose confusion is shown
_MAPS = 3  # images whose activations are shown

Networks = dict[str, tuple[CfgNode, nn.Module]]


def write_comparison(
    paths: Sequence[str | Path],
    output: str | Path,
    baseline: str | Path | None = None,
    num_images: int = 40,
    command: str = "",
) -> Path:
    """Writes ``compare.html``, ``compare.md`` and ``pictures/``.

    Args:
        paths: folders of finished runs, or folders that hold some.
        output: folder to write into.
        baseline: run that all others are measured against, see :func:`fakd.report.run_groups.read_groups`.
        num_images: how many images of the first test set the networks are shown; 0: none, and no pictures of
            predictions.
        command: shown as the way to get the page again.

    Returns:
        The path of ``compare.html``, which needs no other file.

    Raises:
        FileNotFoundError: a folder is not there or holds no run, or no run is finished.
        ValueError: the runs were tested on different data or classes.
    """
    runs, output = read_groups(paths, baseline), Path(output)
    runs.study.problems.extend(_unrecorded(runs))
    (output / "pictures").mkdir(parents=True, exist_ok=True)
    seen = list(_seen(runs, output / "pictures", num_images)) if num_images else []
    title = f"Runs compared on {runs.study.datasets[0]}"
    return save_page(output, "compare", title, list(_blocks(runs, seen, command)))


def _unrecorded(runs: RunGroups) -> Iterator[str]:
    """A sentence for each kind of record that runs of older versions did not leave."""
    every = [run for group in runs.groups.values() for run in group]
    fakd = [run for run in every if any(name.startswith("FAKD") for name in run.config["KD.LOSSES"])]
    for kind, sections, missing in (
        ("confusion.json", "“Confusions that changed most”", [r for r in every if r.confusion is None]),
        (
            "covariance in metrics.json",
            "“Covariance” and “Activation”",
            [r for r in fakd if not r.covariances],
        ),
    ):
        if missing:
            folders = ", ".join(str(run.folder) for run in missing)
            yield f"No {kind}, which {sections} need, in {folders}: trained by an older version. Train again."


def _blocks(runs: RunGroups, seen: Sequence[Block], command: str) -> Iterator[Block]:
    study = runs.study
    measured = list(_per_class(runs))
    yield Text(headline.lead(study), "lead")
    yield Bullets(headline.sentences(study))
    yield Text(tables.circumstances(study), "note")
    if study.problems:
        yield Text(
            f"**Something is left out:** {len(study.problems)} listed at the end, under “Left out”.",
            "warning",
        )
    yield from result_blocks(study)
    yield from measured
    yield from seen
    yield from _training(runs)
    yield Heading("What it costs")
    yield Table(tables.cost(study))
    yield Heading("Protocol of every run")
    yield Table(tables.protocol(study))
    if study.problems:
        yield Heading("Left out")
        yield Bullets(study.problems)
    if command:
        yield Heading("How to get this page again")
        yield Code(command)


def _per_class(runs: RunGroups) -> Iterator[Block]:
    study = runs.study
    table = plots.class_table(study)
    counts = {
        name: [c for r in group if (c := r.confusion) is not None] for name, group in runs.groups.items()
    }
    kept = [c for group in counts.values() for c in group]
    shares = pd.Series(100 * kept[0].sum(axis=1) / kept[0].sum(), table.index) if kept else None
    yield Heading("Per class")
    yield class_plots.per_class(study, table)
    yield Table(_class_texts(runs, table, shares))
    yield Text(
        f"IoU in percent on {study.datasets[0]}, mean ± standard deviation over seeds; – where no label has "
        "it. A click on a heading sorts.",
        "note",
    )
    if not study.methods or study.baseline not in table:
        return
    yield from _hard_and_easy(runs, table)
    if shares is not None:
        yield from _frequent_and_rare(runs, table, shares)
    rates = {
        name: np.mean([class_plots.confusion_rates(c) for c in group], axis=0)
        for name, group in counts.items()
        if group
    }
    if study.baseline in rates and set(rates) & set(study.methods):
        yield from _confusions(runs, rates, list(table.index))


def _class_texts(runs: RunGroups, table: pd.DataFrame, shares: pd.Series | None) -> pd.DataFrame:
    study = runs.study
    iou = study.iou[study.iou["dataset"] == study.datasets[0]].astype({"IoU": float})
    texts = iou.groupby(["class", "run"], sort=False)["IoU"].apply(mean_std).unstack()
    columns = {"class": table.index}
    if shares is not None:
        columns["% of pixels"] = [f"{share:.3g}" for share in shares]
    columns |= {name: texts.loc[table.index, name] for name in table}
    if study.baseline in table:
        for name, values in class_plots.gains(study, table).items():
            columns[f"{name} − {study.baseline}"] = [
                tables.NOTHING if pd.isna(v) else signed(v) for v in values
            ]
    return pd.DataFrame({name: list(column) for name, column in columns.items()})


def _hard_and_easy(runs: RunGroups, table: pd.DataFrame) -> Iterator[Block]:
    study = runs.study
    means = class_plots.halves(class_plots.by_difficulty(study, table))
    means["hard − easy"] = means["hard"] - means["easy"]
    yield Heading("Hard and easy classes")
    caption = (
        f"A bar per class, the one with the lowest IoU of {study.reference} first; the black lines are the "
        "means of the hard and of the easy half."
    )
    yield Picture("difficulty", class_plots.difficulty(study, table), caption)
    yield Table(means.map(signed).reset_index(names="run"))
    yield Text(
        f"Points of IoU. A class that was unlucky in the seeds of {study.reference} lands among the hard "
        "ones and gains by that alone: part of any advantage of the hard half is this return to the mean.",
        "note",
    )


def _frequent_and_rare(runs: RunGroups, table: pd.DataFrame, shares: pd.Series) -> Iterator[Block]:
    study = runs.study
    correlations = class_plots.rank_correlations(study, table, shares)
    yield Heading("Frequent and rare classes")
    caption = "A dot per class: what a method gains over how much of the test set the class covers."
    yield Picture("long_tail", class_plots.long_tail(study, table, shares), caption)
    told = ", ".join(f"{name} {signed(value)}" for name, value in correlations.items())
    yield Text(
        f"Spearman's rank correlation of gain and share: {told}. Below zero the rare classes gain more.",
        "note",
    )


def _confusions(runs: RunGroups, rates: dict[str, np.ndarray], classes: list[str]) -> Iterator[Block]:
    study = runs.study
    table = class_plots.changed_confusions(rates, study, classes, _PAIRS)
    if table.empty:
        return
    yield Heading("Confusions that changed most")
    caption = (
        f"How much of a label is taken for another class, minus that of {study.reference}, in points of the "
        f"label's pixels; the {len(table)} pairs that changed most, mean over seeds."
    )
    yield Picture("confusions", class_plots.confusions(study, table), caption)
    methods = [name for name in study.methods if name in table]
    texts = table.assign(
        **{study.baseline: table[study.baseline].map("{:.1f} %".format)},
        **{name: table[name].map(signed) for name in methods},
    )
    yield Table(texts)


def _training(runs: RunGroups) -> Iterator[Block]:
    study = runs.study
    logs = {name: [run.log for run in group] for name, group in runs.groups.items()}
    curves, logged = plots.curves(study), log_plots.logged(study, logs)
    if curves or logged:
        yield Heading("While training")
    if curves:
        caption = "mIoU at every evaluation: thin lines are seeds, thick ones their mean."
        yield Picture("curves", curves, caption)
    if logged:
        caption = (
            "What was logged: the weighted losses as they enter the sum, numbers of single losses (lambda is "
            "the strength of FAKD's augmentation), the learning rate. Losses of different methods share no "
            "scale."
        )
        yield Picture("logged", logged, caption)
    if picture := log_plots.spread(logs):
        yield Heading("Covariance of the features")
        caption = (
            "How far the features of a class spread: trace and largest eigenvalue of its running covariance, "
            "a line per class, mean over seeds. Coloured: the classes that end highest; dashed: the median."
        )
        yield Picture("covariance", picture, caption)


def _seen(runs: RunGroups, folder: Path, num_images: int) -> Iterator[Block]:
    """What needs the networks and the images; what cannot be had becomes a problem of the study."""
    study = runs.study
    networks = _networks(runs)
    if not networks:
        return
    try:
        scenes = load_scenes(study.datasets[0], num_images)
    except (OSError, ValueError, KeyError) as error:
        study.problems.append(f"All pictures of predictions: {message_of(error)}")
        return
    with tqdm(total=len(networks) * len(scenes.records), unit="image", desc="Predicting") as bar:
        found = {
            name: predictions(cfg, network, scenes.records, bar.update)
            for name, (cfg, network) in networks.items()
        }
    chosen = draw_panels(
        folder / "panels.png",
        scenes.images,
        scenes.truths,
        found,
        classes=scenes.classes,
        palette=scenes.palette,
        ignore_value=scenes.void,
        count=4,
        compare=[name for name in found if name != TEACHER] or None,
        baseline=study.baseline if study.baseline in found else "",
    )
    seeds = ", ".join(f"{name} {run.seed}" for name, run in runs.firsts().items() if name in networks)
    yield Heading("Examples")
    caption = (
        "Image, truth, and what each network makes of it; below, its errors beside those of "
        f"{study.reference}. Seeds: {seeds}."
    )
    yield Picture("panels", (folder / "panels.png").read_bytes(), caption)
    yield Heading("Activation, with and without covariance")
    _draw_activations(folder / "activations.png", networks, runs, scenes, chosen[:_MAPS])
    caption = (
        "The length |s| of the feature in front of the classifier, at every pixel: how strongly the network "
        "responds there. “augmented” is the same with covariance, the root mean square length of a feature "
        "drawn as FAKD draws it: the root of |s|² + λ tr Σ, with the Σ of the pixel's label and the λ and Σ "
        "of the end of training. Each network has its own scale, from its shortest (dark) to its longest "
        "(bright). FAKD's paper shows such maps without saying how they are made; this is this project's "
        "definition."
    )
    yield Picture("activations", (folder / "activations.png").read_bytes(), caption)


def _networks(runs: RunGroups) -> Networks:
    """A network per group, and the teacher, if its weights are still where the runs found them."""
    firsts, found = runs.firsts(), Networks()
    for name, run in firsts.items():
        try:
            cfg = _config(run)
            found[name] = cfg, load_trained(cfg, str(run.weights))
        except (OSError, ValueError, KeyError) as error:
            runs.study.problems.append(
                f"{run.folder}: missing from the pictures of predictions: {message_of(error)}"
            )
    pupils = [run for run in firsts.values() if run.is_distilled]
    if TEACHER not in firsts and pupils:
        try:
            cfg = _config(pupils[0])
            teacher = build_teacher(cfg)
            cfg.INPUT.FORMAT = teacher.input_format
            found = {TEACHER: (cfg, teacher.eval())} | found
        except (OSError, ValueError, KeyError) as error:
            runs.study.problems.append(
                f"The teacher of {pupils[0].folder}: missing from the pictures. {message_of(error)}"
            )
    return found


def _config(run: FinishedRun) -> CfgNode:
    """That of the network alone, on a device that this machine has."""
    cfg = load_config(str(run.folder / "config.yaml"), recipe=NO_RECIPE)
    if not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    return cfg


def _draw_activations(
    path: Path, networks: Networks, runs: RunGroups, scenes: Scenes, chosen: Sequence[int]
) -> None:
    firsts = runs.firsts()
    added = {name: spread for name in networks if name in firsts and (spread := _added(firsts[name], scenes))}
    titles = ["image", *(t for name in networks for t in (name, f"{name}, augmented")[: 1 + (name in added)])]
    rows = []
    for i in chosen:
        image, truth = scenes.images[i], scenes.truths[i]
        row = [Tile(image)]
        for name, (cfg, network) in networks.items():
            square = enlarged(activation(cfg, network, scenes.records[i]), truth.shape)
            maps = [np.sqrt(square)]
            if name in added:
                maps.append(np.sqrt(square + np.array(added[name])[truth]))
            low, high = np.min(maps), np.max(maps)
            for values in maps:
                shade = colormaps["viridis"]((values - low) / max(high - low, 1e-12), bytes=True)[..., :3]
                row.append(Tile(shade, f"{values.min():.2f} to {values.max():.2f}"))
        rows.append(row)
    write_tiles(path, rows, titles, "Length of the feature, in every network's own scale: dark is short.")


def _added(run: FinishedRun, scenes: Scenes) -> list[float]:
    """What covariance adds to the squared length of a feature, by label (void nothing); empty without any."""
    if not run.covariances:
        return []
    loss, last = run.covariances[0], run.log.ffill().iloc[-1]
    traces = [last[f"{loss}/lambda"] * last.get(f"{loss}/trace/{name}", 0.0) for name in scenes.classes]
    return traces + [0.0] * (len(scenes.palette) - len(traces))
