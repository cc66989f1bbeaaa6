"""A study: a teacher, then a student by several methods and seeds, then the report that compares them."""

import gc
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode
from tqdm import tqdm

from fakd.config import NO_RECIPE, load_config
from fakd.engine import evaluate_weights, run
from fakd.engine.cli import message_of
from fakd.engine.run_folder import RunFolder
from fakd.files import atomic_write
from fakd.modeling.detectron2_teacher import is_detectron2_config
from fakd.report.report import write_report
from fakd.report.table import TEACHER


@dataclass(frozen=True)
class StudySpec:
    """What to train.

    Attributes:
        teacher_config: config file of the teacher.
        student_config: config file of the student.
        methods: recipes; "student" is the student without help.
        seeds: every method runs with each.
        output: folder of the study; runs lie in ``<method>/seed<k>``.
        opts: ``KEY VALUE ...`` for every run.
        teacher_opts: for the teacher besides.
        student_opts: for every student besides.
        teacher_weights: trained weights of the teacher; "" trains it, once, with the first seed.
    """

    teacher_config: str
    student_config: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    output: Path
    opts: tuple[str, ...] = ()
    teacher_opts: tuple[str, ...] = ()
    student_opts: tuple[str, ...] = ()
    teacher_weights: str = ""


@dataclass(frozen=True)
class _Run:
    name: str
    cfg: CfgNode
    config_file: str
    given: bool = False  # trained elsewhere: evaluated only

    @property
    def weights(self) -> str:
        return self.cfg.MODEL.WEIGHTS if self.given else str(self.folder / "model_final.pth")

    @property
    def folder(self) -> Path:
        return Path(self.cfg.OUTPUT_DIR)

    @property
    def started(self) -> bool:
        return (self.folder / "config.yaml").exists()

    @property
    def finished(self) -> bool:
        return (self.folder / "result.json").exists()

    @property
    def needs_teacher(self) -> bool:
        return self.cfg.MODEL.META_ARCHITECTURE == "Distiller"

    def __str__(self) -> str:
        return f"{self.name} seed {self.cfg.SEED}"


def run_study(spec: StudySpec, command: str = "") -> int:
    """Trains what is not trained yet, one run after another in this process, and writes the report.

    A finished run is left as it is, an interrupted one is resumed. A run that fails leaves ``error.txt`` in
    its folder, and the others go on.

    Args:
        spec: what to train.
        command: shown in the report as the way to get these runs again.

    Returns:
        Exit code: 0, or 1 if a run failed.

    Raises:
        KeyError, ValueError, FileNotFoundError: a config, recipe or option is wrong, or the folder holds runs
            of another study; nothing ran.
        SystemExit: a signal stopped a run; everything is saved, and the same study goes on from there.
    """
    runs = list(_plan(spec))
    for each in runs:
        if each.started:
            RunFolder(each.folder).check_usable(each.cfg, resume=True)
    failed: list[str] = []
    iterations = sum(r.cfg.SOLVER.MAX_ITER for r in runs)
    # Where nobody watches, a line now and then is enough.
    interval = 0.2 if sys.stderr.isatty() else 20
    with tqdm(total=iterations, unit="it", dynamic_ncols=True, mininterval=interval, smoothing=0.05) as bar:
        for each in runs:
            bar.set_description(str(each))
            if not _attempt(each, runs, bar):
                failed.append(f"{each}: see {each.folder / 'error.txt'}")
    print("Drawing the pictures and the report.")
    print(f"Report: {write_report([spec.output], spec.output, command=command)}")
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if failed else 0


def _plan(spec: StudySpec) -> Iterator[_Run]:
    """All runs, with their configs checked."""
    teacher, weights = spec.teacher_config, spec.teacher_weights
    if not weights:
        folder = spec.output / TEACHER / f"seed{spec.seeds[0]}"
        opts = [*spec.opts, *spec.teacher_opts]
        yield _Run(TEACHER, _config(teacher, opts, NO_RECIPE, folder, spec.seeds[0]), teacher)
        # The config it was trained with, options included.
        teacher, weights = str(folder / "config.yaml"), str(folder / "model_final.pth")
    elif not is_detectron2_config(teacher):
        folder = spec.output / TEACHER / f"seed{spec.seeds[0]}"
        opts = [*spec.opts, *spec.teacher_opts, "MODEL.WEIGHTS", weights]
        yield _Run(TEACHER, _config(teacher, opts, NO_RECIPE, folder, spec.seeds[0]), teacher, given=True)
    for method in spec.methods:
        name = Path(method).stem
        for seed in spec.seeds:
            opts = [*spec.opts, *spec.student_opts]
            opts += ["KD.TEACHER.CONFIG_FILE", teacher, "KD.TEACHER.WEIGHTS", weights]
            cfg = _config(spec.student_config, opts, method, spec.output / name / f"seed{seed}", seed)
            yield _Run(name, cfg, spec.student_config)


def _config(file: str, opts: list[str], recipe: str, folder: Path, seed: int) -> CfgNode:
    cfg = load_config(file, [*opts, "SEED", str(seed), "OUTPUT_DIR", str(folder)], recipe)
    cfg.freeze()
    return cfg


def _attempt(each: _Run, runs: list[_Run], bar: tqdm) -> bool:
    """Runs or resumes one; False, and a note in its folder, when it fails."""
    note = each.folder / "error.txt"
    planned_end = bar.n + each.cfg.SOLVER.MAX_ITER
    gc.collect()  # what the run before held must not count as this one's memory
    try:
        if each.needs_teacher and runs[0].name == TEACHER and not runs[0].finished:
            raise ValueError("the teacher's own run failed")
        if each.given:
            if not each.finished:
                evaluate_weights(each.cfg, each.name, each.config_file)
        else:
            run(each.cfg, each.started, method=each.name, config_file=each.config_file, bar=bar, quiet=True)
        note.unlink(missing_ok=True)
        done = True
    except Exception as error:  # whatever it is, the other runs are worth having
        tqdm.write(f"{each} failed: {message_of(error)}", file=sys.stderr)
        each.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(note, "w") as file:
            file.write(f"{message_of(error)}\n\n{traceback.format_exc()}")
        done = False
    # Iterations that this process did not run say nothing of the speed.
    bar.initial += planned_end - bar.n
    bar.update(planned_end - bar.n)
    return done
