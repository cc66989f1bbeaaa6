"""What int8 costs finished students, by the way it is reached."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fakd.config import load_config
from fakd.engine import run
from fakd.engine.run_folder import RunFolder
from fakd.files import append_line, file_digest, read_lines

from .formats import FORMATS
from .source import load_student, read_source
from .student import export_student, measure_miou

WEIGHTS = "model_best.pth"  # of a float run: what its first test set chose
ALONE = "student"


def compare_int8(
    config_file: str,
    folders: Sequence[Path],
    output: Path,
    size: tuple[int, int],
    *,
    recipes: Sequence[str] = (ALONE,),
    teacher: str = "",
    iterations: int = 300,
    rate: float = 0.1,
    formats: Sequence[str] = ("onnx",),
    opts: Sequence[str] = (),
    tell: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Float, static int8 and int8 that is trained, of each of several finished runs.

    The trained ones go on from a run's best weights and with its seed. What is finished in ``output``, and
    noted in its ``measured.jsonl`` for the same weights, size and options, is taken as it is; interrupted
    runs are resumed.

    Args:
        config_file: of the runs.
        folders: of finished runs, usually of one config with several seeds.
        output: of the runs and files that are made, in a folder per run, named after it and its weights.
        size: (H, W) of the input of the files.
        recipes: who teaches in int8; "student" is nobody.
        teacher: folder of the run whose network teaches; "" for recipes without.
        iterations: of training in int8.
        rate: factor of the run's learning rate.
        formats: of the files; all but the first are made of trained networks alone.
        opts: ``(KEY, VALUE, ...)`` for the training in int8, and DEPLOY.QAT's for static int8.
        tell: takes a line on each row as it is made.

    Returns:
        A row per run, way and file: "run", "way", "file" ("" is PyTorch), "MB", "agreement" in percent of the
        pixels with PyTorch's class on random images, and "mIoU on <test set>".

    Raises:
        FileNotFoundError, ValueError: a run is not finished or named twice, or cannot be computed in int8.
    """
    measured = output / "measured.jsonl"
    known = list(read_lines(measured))
    rows: list[dict[str, Any]] = []
    plugins = load_config(config_file).PLUGINS
    digest = functools.cache(file_digest)  # a file has several rows
    made = _folders(output, folders, digest)

    def add(
        folder: Path, way: str, file: str, weights: str, measure: Callable[..., dict[str, Any]], *given: Any
    ) -> None:
        of = {"weights": digest(weights), "size": list(size), "opts": list(map(str, opts))}
        key = {"run": folder.name, "way": way, "file": file}
        line = next((line for line in known if line.items() >= (key | {"of": of}).items()), None)
        if line is None:
            line = key | {"of": of} | measure(*given)
            append_line(measured, line)
        row = {name: value for name, value in line.items() if name != "of"}
        rows.append(row)
        tell("; ".join(f"{k} {v:.2f}" if isinstance(v, float) else str(v) for k, v in row.items() if v))

    for folder, own in made.items():
        weights = str(folder / WEIGHTS)
        add(folder, "float", "", weights, _in_float, folder, weights, plugins)
        given = folder, weights, own / "static", formats[0], size, plugins, opts
        add(folder, "static", formats[0], weights, _as_file, *given)
        for recipe in recipes:
            trained = own / recipe
            way = "trained" if recipe == ALONE else f"trained with {recipe}"
            reached = _train(config_file, folder, trained, recipe, teacher, iterations, rate, opts)
            final = str(trained / "model_final.pth")
            add(folder, way, "", final, dict, reached)
            for name in formats:
                stem = trained / "student"
                add(folder, way, name, final, _as_file, trained, final, stem, name, size, plugins)
    return pd.DataFrame(rows)


def _folders(output: Path, folders: Sequence[Path], digest: Callable[[str], str]) -> dict[Path, Path]:
    """Where what is made of each run lies; of runs named alike, and of other weights, in different places."""
    made: dict[Path, Path] = {}
    for folder in folders:
        weights = folder / WEIGHTS
        if not weights.is_file():
            raise FileNotFoundError(f"There is no '{weights}': the run is not finished or not evaluated.")
        own = output / f"{folder.name}-{digest(str(weights))[:12]}"
        if own in made.values():
            raise ValueError(f"'{folder}' has name and weights of a run before it: give each run once.")
        made[folder] = own
    return made


def _in_float(folder: Path, weights: str, plugins: Sequence[str]) -> dict[str, Any]:
    cfg, weights = read_source(folder, weights=weights, allow_plugins=plugins)
    cfg.MODEL.DEVICE, cfg.TEST.SAVE = "cpu", ()
    return _named(measure_miou(cfg, load_student(cfg, weights)))


def _as_file(
    folder: Path,
    weights: str,
    stem: Path,
    name: str,
    size: tuple[int, int],
    plugins: Sequence[str],
    opts: Sequence[str] = (),
) -> dict[str, Any]:
    """An int8 file of a run's network: its size, its agreement with PyTorch and what it reaches."""
    cfg, weights = read_source(folder, weights=weights, opts=opts, allow_plugins=plugins)
    path = f"{stem}{FORMATS[name].ending}"
    # What PyTorch reaches has a row of its own.
    nothing = dict.fromkeys(cfg.DATASETS.TEST, 0.0)
    done = export_student(cfg, weights, path, file_format=name, size=size, precision="int8", reached=nothing)
    assert done.comparison is not None
    miou = _named({dataset: after for dataset, (_, after) in done.miou.items()})
    return {"MB": done.size / 1e6, "agreement": 100 * done.comparison.agreement} | miou


def _named(miou: dict[str, float]) -> dict[str, Any]:
    return {f"mIoU on {name}": value for name, value in miou.items()}


def _train(
    config_file: str,
    folder: Path,
    output: Path,
    recipe: str,
    teacher: str,
    iterations: int,
    rate: float,
    opts: Sequence[str],
) -> dict[str, float]:
    """What a float run's continuation in int8 reaches, by test set."""
    before = load_config(config_file, opts, recipe=ALONE)
    own = {
        "SEED": RunFolder(folder).config()["SEED"],
        "MODEL.WEIGHTS": folder / WEIGHTS,
        "SOLVER.MAX_ITER": iterations,
        "SOLVER.BASE_LR": before.SOLVER.BASE_LR * rate,
        "SOLVER.WARMUP_ITERS": min(before.SOLVER.WARMUP_ITERS, iterations // 10),
        "TEST.EVAL_PERIOD": 0,
        "DEPLOY.QAT.ENABLED": True,
        "OUTPUT_DIR": output,
    }
    if recipe != ALONE:
        own["KD.TEACHER.RUN"] = teacher
    words = [str(word) for pair in own.items() for word in pair]
    cfg = load_config(config_file, [*opts, *words], recipe)
    cfg.freeze()
    run(cfg, resume=RunFolder(output).config_file.is_file(), method=recipe, config_file=config_file)
    metrics = RunFolder(output).metrics()
    assert metrics is not None  # the run is finished
    return _named({name: found["mIoU"] for name, found in metrics.by_set.items()})
