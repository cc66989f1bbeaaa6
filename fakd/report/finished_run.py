"""A finished run, however it was read, and when two runs are the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Strict, field_validator, model_validator

from fakd.engine.run_folder import changed_values

METRICS = ("mIoU", "mAcc", "aAcc")
# Fields that a kept line rounds to six digits.
_MEASURED = {
    "metrics_by_dataset",
    "best",
    "gflops",
    "seconds_per_iteration",
    "wall_clock",
    "peak_memory_mb",
    "curve",
}
# Fields of result.json that a line holds elsewhere, or that mean something on one machine only.
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
    """A finished run, however it was read. The fields of its result.json, and:

    Attributes:
        pair, run, values: its place in a sweep, see :class:`fakd.sweep.trial.Trial`.
        schedule: which values its weights were trained with, see :func:`fakd.sweep.population.schedule_of`.
        max_seconds: time limit of its training.
        paper: row of a paper's tables that it belongs to, as ``<project>/<pair>``.
        digest: hash of all that determines its weights except the seed; "" without a config.
        config: content of its config.yaml, without paths of this machine.
        teacher: :attr:`identity` of the run whose weights it learnt from.
        curve: (iteration, mIoU on the first test set, seconds of training or None) of each evaluation.
        confusion: by test set, (K, K) pixels, row = label, column = prediction.
        folder: of the run, which may be gone; None for a kept line.
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
        """Older versions stored the metrics of one test set."""
        if isinstance(content, dict) and not content.get("metrics_by_dataset") and "metrics" in content:
            return {**content, "metrics_by_dataset": {content.get("dataset"): content["metrics"]}}
        return content

    @field_validator("config")
    @classmethod
    def _is_of_a_run(cls, given: dict[str, Any]) -> dict[str, Any]:
        if given and not isinstance(given.get("MODEL"), dict):
            raise ValueError("no MODEL in it, as the config of a run has")
        return given

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
        """Unique among the runs of a report."""
        return self.pair, self.identity if self.digest else self.source

    @property
    def references(self) -> set[str]:
        """Values of ``teacher`` in the runs that learnt from this one."""
        return {self.identity, str(self.folder and self.folder.resolve())}

    @property
    def label(self) -> str:
        """Its name in a table, before details are added that tell similar runs apart."""
        return self.run or self.method

    @property
    def is_distilled(self) -> bool:
        """Whether it learned from a teacher."""
        if self.config:
            return self.config["MODEL"].get("META_ARCHITECTURE") == "Distiller"
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
        # Values that enter the digest are not rounded.
        measured = json.dumps({key: value for key, value in content.items() if key in _MEASURED})
        content |= json.loads(measured, parse_float=lambda digits: float(f"{float(digits):.6g}"))
        return json.dumps(content, separators=(",", ":"))


def without_paths(config: dict[str, Any], teacher: str) -> dict[str, Any]:
    """A config without absolute paths, so that it is the same on every machine."""
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


def digest_of(config: Mapping[str, Any], run: FinishedRun | None = None) -> str:
    """Hash of all that determines a run's weights except the seed; "" without a config."""
    if not config:
        return ""
    decides = {key: value for key, value in changed_values(config).items() if key != "SEED"}
    if run is not None and len(run.schedule) > 1:
        decides["schedule"] = run.schedule
    if run is not None and run.max_seconds is not None:
        decides["max_seconds"] = run.max_seconds
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()[:12]
