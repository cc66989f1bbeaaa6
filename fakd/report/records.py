"""The one reader of finished runs: folders that training or a sweep left, and files of kept JSON lines.

A line is all that a report needs of a finished run: what its ``result.json`` says, its place in a sweep, mIoU
over training, the confusion matrix, and its config, in full in the first line of a file that has it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Strict, model_validator

from fakd.engine.cli import message_of
from fakd.engine.run_folder import RunFolder, changed_values
from fakd.files import atomic_write, read_lines
from fakd.sweep.events import FOLDER as EVENTS
from fakd.validation import parse, read_json

METRICS = ("mIoU", "mAcc", "aAcc")
# What a line holds to six digits.
_MEASURED = {
    "metrics_by_dataset",
    "best",
    "gflops",
    "seconds_per_iteration",
    "wall_clock",
    "peak_memory_mb",
    "curve",
}
# Of result.json, what a line says elsewhere or what has a meaning on one machine alone.
_NOT_KEPT = {"name", "metrics", "output_dir", "weights", "folder", "source"}


class Metrics(BaseModel):
    """Percentages on one test set; None where no label has the class."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    mIoU: float | None
    mAcc: float | None
    aAcc: float | None
    IoU: dict[str, float | None] = {}
    Acc: dict[str, float | None] = {}


class FinishedRun(BaseModel):
    """A finished run, wherever it was read. The fields of its result.json, and:

    Attributes:
        pair, run, values: its place in a sweep, see :class:`fakd.sweep.trial.Trial`.
        schedule: which values its weights were trained with, see :func:`fakd.sweep.population.schedule_of`.
        max_seconds: after which its training ended in any case.
        paper: row of a paper's tables that it belongs to, as ``<project>/<pair>``.
        digest: of all that decides about its weights, but the seed; "" where no config was left.
        config: content of its config.yaml, without paths of this machine.
        teacher: :attr:`identity` of the run whose weights it learnt from.
        curve: (iteration, mIoU on the first test set, seconds of training or None) of each evaluation.
        confusion: by test set, (K, K) pixels, row = label, column = prediction.
        folder: it lies in, or has lain in; None for a line.
        source: what a message calls it.
    """

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    dataset: str
    metrics_by_dataset: dict[str, Metrics]
    method: str = "student"
    seed: int = 0
    config_file: str | None = None
    train_dataset: str | None = None
    iterations: int | None = None
    batch_size: int | None = None
    crop: list[int] | None = None
    params: int | None = None
    gflops: float | None = None
    flops_size: list[int] | None = None
    seconds_per_iteration: float | None = None
    wall_clock: float | None = None
    packed: int = 1
    peak_memory_mb: float | None = None
    commit: str | None = None
    machine: str | None = None
    versions: dict[str, str] | None = None
    finished: str | None = None
    pair: str = ""
    run: str = ""
    values: dict[str, Any] = {}
    schedule: list[dict[str, Any]] = []
    max_seconds: float | None = None
    paper: str = ""
    digest: str = ""
    config: dict[str, Any] = {}
    teacher: str = ""
    curve: list[Annotated[tuple[int, float, float | None], Strict(False)]] = []
    confusion: dict[str, list[list[int]]] = {}
    folder: Path | None = None
    source: str = ""

    @model_validator(mode="before")
    @classmethod
    def _of_older_versions(cls, content: Any) -> Any:
        """They named one test set alone."""
        if isinstance(content, dict) and not content.get("metrics_by_dataset") and "metrics" in content:
            return {**content, "metrics_by_dataset": {content.get("dataset"): content["metrics"]}}
        return content

    @model_validator(mode="after")
    def _has_its_dataset(self) -> FinishedRun:
        if self.dataset not in self.metrics_by_dataset:
            raise ValueError(f"metrics_by_dataset holds no metrics of the dataset {self.dataset}")
        return self

    @property
    def identity(self) -> str:
        """The same for two runs that trained the same."""
        return f"{self.digest}-{self.seed}"

    @property
    def place(self) -> tuple[str, str]:
        """No two runs of a report have the same."""
        return self.pair, self.identity if self.digest else self.source

    @property
    def references(self) -> set[str]:
        """What ``teacher`` is of those who learnt from this run."""
        return {self.identity, str(self.folder and self.folder.resolve())}

    @property
    def label(self) -> str:
        """What it is called in a table, where no other run has to be told from it."""
        return self.run or self.method

    @property
    def is_distilled(self) -> bool:
        """Whether it learned from a teacher."""
        if self.config:
            return self.config["MODEL"]["META_ARCHITECTURE"] == "Distiller"
        return bool(self.teacher) or self.label != "student"

    @property
    def classes(self) -> list[str]:
        """Names of the classes of the first test set."""
        return list(self.metrics_by_dataset[self.dataset].IoU)

    def line(self, with_config: bool) -> str:
        """The run as a JSON line."""
        content = self.model_dump(
            exclude_defaults=True, exclude=_NOT_KEPT | (set() if with_config else {"config"})
        )
        content["config_file"] = _portable(self.config_file or "")
        # Not of the values that the digest is made of.
        rounded = {key: _rounded(value) for key, value in content.items() if key in _MEASURED}
        return json.dumps(content | rounded, separators=(",", ":"))


def read_runs(paths: Sequence[str | Path]) -> tuple[list[FinishedRun], list[str]]:
    """All finished runs in some places.

    Args:
        paths: folders that hold runs or sweeps at any depth, and files of lines.

    Returns:
        The runs, and a sentence for each that is unfinished, unreadable or a repeat.

    Raises:
        FileNotFoundError: a path is not there or holds no run.
    """
    runs: dict[tuple[str, str], FinishedRun] = {}
    problems: list[str] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = _read_folder(path, problems)
        elif path.is_file():
            found = read_kept(path, problems)
        else:
            raise FileNotFoundError(f"No folder or file '{path}': give folders that training left.")
        for run in found:
            twin = runs.setdefault(run.place, run)
            if twin is not run and twin.finished != run.finished:
                problems.append(
                    f"{run.source}: has the config and the seed of {twin.source}, which is shown instead."
                )
    return list(runs.values()), problems


def read_kept(path: Path, problems: list[str]) -> Iterator[FinishedRun]:
    """The runs of a file of lines; a sentence for each line that is not one goes to ``problems``."""
    configs: dict[str, dict[str, Any]] = {}
    for number, text in enumerate(path.read_text("utf-8").splitlines(), 1):
        source = f"{path}, line {number}"
        try:
            run = parse(FinishedRun, json.loads(text), source)
        except ValueError as error:
            told = str(error) if str(error).startswith(source) else f"{source}: no JSON: {error}"
            problems.append(told)
            continue
        config = configs.setdefault(run.digest, run.config)
        if run.digest and not config:
            problems.append(f"{source}: no line before it has the config {run.digest}.")
            continue
        config = config and {**config, "SEED": run.seed}
        update = {"config": config, "digest": _digest(config, run), "source": f"{source} ({run.method})"}
        yield run.model_copy(update=update)


def write_lines(paths: Sequence[str | Path], file: str | Path) -> tuple[int, list[str]]:
    """Adds each finished run that a file of lines has not yet.

    Args:
        paths: see :func:`read_runs`.
        file: JSON lines; need not be there yet.

    Returns:
        How many runs were added, and a sentence for each that is not finished or cannot be read.
    """
    file = Path(file)
    runs, problems = read_runs(paths)
    known = {run.place for run in read_kept(file, problems)} if file.exists() else set()
    configs = {line["digest"] for line in read_lines(file) if "config" in line}
    lines = []
    for run in runs:
        if run.place not in known and run.digest:
            lines.append(run.line(run.digest not in configs) + "\n")
            configs.add(run.digest)
    file.parent.mkdir(parents=True, exist_ok=True)
    old = [line + "\n" for line in file.read_text("utf-8").splitlines()] if file.exists() else []
    with atomic_write(file, "w") as stream:
        stream.write("".join([*old, *lines]))
    return len(lines), problems


def _read_folder(path: Path, problems: list[str]) -> Iterator[FinishedRun]:
    places: dict[Path, list[dict[str, Any]]] = {}
    for spec in sorted(path.rglob("sweep.json")):
        try:
            places |= _events(spec.parent)
        except (OSError, ValueError) as error:
            problems.append(f"{error} Its runs are shown without their places in the sweep.")
    folders = {file.parent for file in path.rglob("config.yaml")}
    folders |= {
        each
        for each in (path, *path.rglob("seed*"))
        if each.is_dir() and each.name.removeprefix("seed").isdigit()
    }
    if not folders and not places:
        raise FileNotFoundError(
            f"'{path}' holds no run: there is no config.yaml in it or below. Give folders that training left "
            "(OUTPUT_DIR), or a folder of such folders."
        )
    for folder in sorted(folders | places.keys()):
        lines = places.get(folder, [])
        source = str(Path(path.name, folder.relative_to(path)) if path.is_absolute() else folder)
        try:
            yield _read_run(folder, lines, source, problems)
        except FileNotFoundError:
            problems.append(f"{source}: {_why_unfinished(folder, lines)}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            problems.append(f"{source}: cannot be read: {message_of(error)} Train it again.")


def _events(sweep: Path) -> dict[Path, list[dict[str, Any]]]:
    """The events of each of a sweep's runs that began, by its folder, after one of the sweep itself."""
    spec = parse(_Sweep, read_json(sweep / "sweep.json"), sweep / "sweep.json")
    found = {}
    for file in sorted((sweep / EVENTS).glob("*.jsonl")):
        lines = [line for line in read_lines(file) if isinstance(line, dict) and "event" in line]
        if any(line["event"] == "start" for line in lines):
            found[sweep.joinpath(*file.stem.split("+"))] = [{"event": "sweep", "spec": spec}, *lines]
    return found


def _read_run(
    folder: Path, events: Sequence[Mapping[str, Any]], source: str, problems: list[str]
) -> FinishedRun:
    """A run from its folder and what a sweep wrote of it; a folder that is gone is not needed then.

    Raises:
        FileNotFoundError: it is not finished.
        OSError, ValueError: its result or config is damaged.
    """
    results = [event["result"] for event in events if event["event"] == "result"]
    file = folder / "result.json"
    if not results or file.exists():
        results = [read_json(file)]
    content = results[-1]
    if isinstance(content, dict):
        content = _place_of(folder) | content | _place(events)
    run = parse(FinishedRun, content, "result.json")
    config_file, teacher = folder / "config.yaml", ""
    config: dict[str, Any] = {}
    if config_file.exists():
        config = _read_config(config_file)
        teacher = _teacher_of(folder, config)
        config = _without_paths(config, teacher)
    update = {
        "config": config,
        "teacher": teacher if config else run.teacher,
        "folder": folder,
        "source": source,
        "curve": _curve(folder, events, run.dataset, source, problems),
        "confusion": _confusion(folder, source, problems),
    }
    run = run.model_copy(update=update)
    return run.model_copy(update={"digest": _digest(config, run)})


def _place_of(folder: Path) -> dict[str, Any]:
    """What the folders say of a run: ``<method>/seed<k>``, beside ``teachers`` also the pair above these."""
    if not (seed := folder.name.removeprefix("seed")).isdigit():
        return {}
    place = {"method": folder.parent.name, "seed": int(seed)}
    pair = folder.parents[1].name if (folder.parents[2] / "teachers").is_dir() else "runs"
    return place if pair == "runs" else place | {"pair": pair}


def _place(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a sweep knows of a run."""
    if not events:
        return {}
    spec: _Sweep = events[0]["spec"]
    start = [event for event in events if event["event"] == "start"][-1]
    place = {key: start[key] for key in ("pair", "run", "seed", "values")}
    schedule = start.get("schedule", [])
    if len(schedule) > 1:
        place |= {"schedule": schedule, "values": {}}  # has no one value
    row = spec.pairs.get(place["pair"], {}).get("paper", "")
    return place | {
        "max_seconds": spec.stop.get("seconds"),
        "paper": f"{spec.paper}/{row}" if row else "",
        "teacher": start.get("teacher") or "",
    }


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = yaml.load(file.read_text("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file.name}: no yaml: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict) or "MODEL" not in config:
        raise ValueError(f"{file.name}: no config of a run")
    return config


def _teacher_of(folder: Path, config: Mapping[str, Any]) -> str:
    """Identity of the run a distilled student learnt from; "" for a student alone, or a foreign teacher."""
    if config["MODEL"].get("META_ARCHITECTURE") != "Distiller":
        return ""
    weights = Path(config["KD"]["TEACHER"]["WEIGHTS"])
    for file in (weights.parent / "config.yaml", folder / "teacher.yaml"):
        if file.exists():
            teacher = _without_paths(_read_config(file), "")
            return f"{_digest(teacher)}-{teacher['SEED']}"
    return ""


def _without_paths(config: dict[str, Any], teacher: str) -> dict[str, Any]:
    """A config whose files are named so that every machine names them alike."""
    config = _map_texts(config, _portable)
    if teacher:
        options = config["KD"]["TEACHER"]
        options |= {"CONFIG_FILE": "", "WEIGHTS": f"{teacher}/{Path(options['WEIGHTS']).name}"}
    config.pop("OUTPUT_DIR", None)
    return config


def _portable(text: str) -> str:
    """A path without the folders of this machine; any other text as it is."""
    path = Path(text)
    if not path.is_absolute():
        return text
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


def _map_texts(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {key: _map_texts(each, change) for key, each in value.items()}
    if isinstance(value, list):
        return [_map_texts(each, change) for each in value]
    return change(value) if isinstance(value, str) else value


def _digest(config: Mapping[str, Any], run: FinishedRun | None = None) -> str:
    """Of what decides about a run's weights, but the seed; "" without a config."""
    if not config:
        return ""
    decides = {key: value for key, value in changed_values(config).items() if key != "SEED"}
    if run is not None and len(run.schedule) > 1:
        decides["schedule"] = run.schedule
    if run is not None and run.max_seconds is not None:
        decides["max_seconds"] = run.max_seconds
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _curve(
    folder: Path, events: Sequence[Mapping[str, Any]], dataset: str, source: str, problems: list[str]
) -> list[tuple[int, float, float | None]]:
    """mIoU over iterations. A resumed run repeats iterations: the later line is the one that counts."""
    found: dict[int, tuple[float, float | None]] = {}
    try:
        for line in read_lines(folder / "metrics.json"):
            # detectron2 leaves the set's name out when there is only one
            value = line.get(f"{dataset}/sem_seg/mIoU", line.get("sem_seg/mIoU"))
            if value is not None:
                found[int(line["iteration"])] = float(value), None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problems.append(f"{source}: its curve is left out, because metrics.json cannot be read: {error}")
    told = {e["iteration"]: (e["mIoU"], e["seconds"]) for e in events if e["event"] == "evaluation"}
    found = told or found
    return [(i, *found[i]) for i in sorted(found)]


def _confusion(folder: Path, source: str, problems: list[str]) -> dict[str, list[list[int]]]:
    file = RunFolder(folder).confusion_file
    if not file.exists():
        return {}
    try:
        return parse(_Confusion, {"by_set": read_json(file)}, "confusion.json").by_set
    except (OSError, ValueError) as error:
        problems.append(f"{source}: its confusions are left out: {error}")
        return {}


class _Sweep(BaseModel):
    """Of a sweep's file what a report needs."""

    title: str = ""
    paper: Any = ""
    pairs: dict[str, dict[str, Any]] = {}
    stop: dict[str, float] = {}


class _Confusion(BaseModel):
    model_config = ConfigDict(strict=True)

    by_set: dict[str, list[list[int]]]

    @model_validator(mode="after")
    def _is_square(self) -> _Confusion:
        for name, counts in self.by_set.items():
            if any(len(row) != len(counts) for row in counts):
                raise ValueError(f"the matrix of {name} is not square")
        return self


def _why_unfinished(folder: Path, events: Sequence[Mapping[str, Any]]) -> str:
    """What is known of a run without a result."""
    if events:
        end = events[-1]
        if "error" in end:
            return f"{end['event'].replace('_', ' ')}: {end['error']}"
        reached = max((event.get("iteration", 0) for event in events), default=0)
        state = "stopped early by the scheduler" if end["event"] == "stopped" else "not finished"
        return f"{state} after {reached} iterations."
    note = folder / "error.txt"
    if note.exists() and (lines := note.read_text().splitlines()):
        reason = f"failed: {lines[0]}"
    else:
        iterations = [line.get("iteration", 0) for line in read_lines(folder / "metrics.json")]
        reason = f"last logged iteration {max(iterations)}" if iterations else "nothing logged"
    return f"not finished ({reason}). Repeat its command, with --resume for a run of its own."


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
