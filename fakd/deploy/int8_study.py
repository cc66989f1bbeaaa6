"""What int8 costs finished students, by the way it is reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fakd.config import load_config
from fakd.engine import run
from fakd.engine.run_folder import RunFolder

from .exported import FixedSize
from .formats import FORMATS
from .source import load_student, read_source
from .student import export_student, measure_miou

WEIGHTS = "model_best.pth"  # of every run: what its first test set chose
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

    The trained ones go on from a run's best weights and with its seed; those that are finished in ``output``
    are taken as they are, and interrupted ones resumed.

    Args:
        config_file: of the runs.
        folders: of finished runs, usually of one config with several seeds.
        output: of the runs and files that are made.
        size: (H, W) of the input of the files.
        recipes: who teaches in int8; "student" is nobody.
        teacher: folder of the run whose network teaches; "" for recipes without.
        iterations: of training in int8.
        rate: factor of the run's learning rate.
        formats: of the files; all but the first are made of trained networks alone.
        opts: ``(KEY, VALUE, ...)`` for the training in int8.
        tell: takes a line on each row as it is made.

    Returns:
        A row per run, way and file: "run", "way", "file" ("" is PyTorch), "MB", "agreement" in percent of the
        pixels with PyTorch's class on random images, and "mIoU on <test set>".

    Raises:
        FileNotFoundError, ValueError: a run is not finished, or cannot be computed in int8.
    """
    rows: list[dict[str, Any]] = []

    def add(folder: Path, way: str, file: str, miou: dict[str, float], **more: Any) -> None:
        told = {f"mIoU on {name}": value for name, value in miou.items()}
        rows.append({"run": folder.name, "way": way, "file": file, **more, **told})
        tell("; ".join(f"{k} {v:.2f}" if isinstance(v, float) else str(v) for k, v in rows[-1].items() if v))

    for folder in folders:
        own = output / folder.name
        cfg, weights = read_source(folder, weights=folder / WEIGHTS)
        cfg.MODEL.DEVICE, cfg.TEST.SAVE = "cpu", ()
        add(folder, "float", "", measure_miou(cfg, FixedSize(load_student(cfg, weights), size)))
        _export(add, folder, "static", cfg, weights, own / "static", formats[:1], size, precision="int8")
        for recipe in recipes:
            trained = _train(config_file, folder, own / recipe, recipe, teacher, iterations, rate, opts)
            cfg, weights = read_source(trained, weights=trained / WEIGHTS)
            way = "trained" if recipe == ALONE else f"trained with {recipe}"
            add(folder, way, "", measure_miou(cfg, FixedSize(load_student(cfg, weights), size)))
            _export(add, folder, way, cfg, weights, trained / "student", formats, size)
    return pd.DataFrame(rows)


def _export(
    add: Callable[..., None],
    folder: Path,
    way: str,
    cfg: Any,
    weights: str,
    stem: Path,
    formats: Sequence[str],
    size: tuple[int, int],
    precision: str = "",
) -> None:
    for name in formats:
        path = f"{stem}{FORMATS[name].ending}"
        done = export_student(cfg, weights, path, file_format=name, size=size, precision=precision)
        assert done.comparison is not None
        miou = {dataset: after for dataset, (_, after) in done.miou.items()}
        add(folder, way, name, miou, MB=done.size / 1e6, agreement=100 * done.comparison.agreement)


def _train(
    config_file: str,
    folder: Path,
    output: Path,
    recipe: str,
    teacher: str,
    iterations: int,
    rate: float,
    opts: Sequence[str],
) -> Path:
    """The folder of a float run's continuation in int8."""
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
    return output
