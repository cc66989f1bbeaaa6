"""The folder of a run: its files, and whether this command may continue in it."""

import contextlib
import functools
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import Tensor

from fakd.config import load_config, load_teacher_config
from fakd.config.setup import flat_keys
from fakd.files import atomic_write, exclusive_lock, remove_leftovers
from fakd.modeling.detectron2_teacher import is_detectron2_config
from fakd.registry import DISTILL_LOSS_REGISTRY
from fakd.validation import read_yaml

from .metrics import Metrics
from .teacher_check import record_miou

# A killed process and its data workers need some seconds to end.
_PATIENCE = 20.0

# What may differ between a run and its resume, because no weight and no metric depends on it.
_FREE = (
    "OUTPUT_DIR",
    "VIS_PERIOD",
    "WRITERS",
    "VERSION",
    "CUDNN_BENCHMARK",
    "MODEL.DEVICE",
    "DATALOADER.NUM_WORKERS",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.CHECKPOINT_KEEP",
    "CHECKPOINT.",
    "DATASETS.CUSTOM",  # a place, as the root of all other datasets is; splits have names
    "DATASETS.CLASSES",  # no metric knows names; a resume compares them by itself
    "DATASETS.COLOURS",
    "KD.TEACHER.RUN",  # stands for a config and weights, which are given too
    "KD.TEACHER.CHECK_",
    "KD.TEACHER.MIOU",
)


class RunFolder:
    """``config.yaml`` says what a run is, ``model_<7 digits>.pth`` how far it got, ``result.json`` that it
    is done.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.result_file = self.path / "result.json"
        self.confusion_file = self.path / "confusion.json"

    @contextlib.contextmanager
    def claimed(self, cfg: CfgNode, resume: bool) -> Iterator[None]:
        """Keeps the folder for this run and writes its config there; a finished one is left as it is.

        All ranks enter it together.

        Raises:
            ValueError, FileNotFoundError: see :meth:`check_usable`.
            TimeoutError, OSError: see :func:`fakd.files.exclusive_lock`; on every rank.
        """
        self.check_usable(cfg, resume)
        with contextlib.ExitStack() as held:
            error = None
            if comm.is_main_process() and not self.result_file.exists():
                try:
                    held.enter_context(exclusive_lock(self.path, _PATIENCE))
                except OSError as problem:
                    error = problem
            for each in comm.all_gather(error):
                if each is not None:
                    raise each
            self.check_usable(cfg, resume)  # again: another process may just have left the folder
            comm.synchronize()  # the first rank is about to change what the others have just read
            if comm.is_main_process() and not self.result_file.exists():
                self.write_config(cfg)
                remove_leftovers(self.path)
            yield

    def check_usable(self, cfg: CfgNode, resume: bool) -> None:
        """Checks that ``cfg`` may train here.

        Raises:
            FileNotFoundError: there is nothing to resume.
            ValueError: it is a file, a new run would overwrite one, or a resumed run would not be the same.
        """
        if self.path.is_file():
            raise ValueError(f"OUTPUT_DIR '{self.path}' is a file; name a folder.")
        if resume:
            self._check_resume(cfg)
        elif self.result_file.exists() or list(self.path.glob("model_*.pth")):
            state = "a finished" if self.result_file.exists() else "an unfinished"
            raise ValueError(
                f"'{self.path}' already holds {state} run. Continue it with --resume, choose another "
                "OUTPUT_DIR, or delete that folder."
            )

    def _check_resume(self, cfg: CfgNode) -> None:
        if not self.config_file.is_file():
            raise FileNotFoundError(
                f"Nothing to resume: '{self.path}' holds no run (no config.yaml). Check OUTPUT_DIR, or start "
                "without --resume."
            )
        content = self._content()
        old, new = deciding_values(content), deciding_values(yaml.safe_load(cfg.dump()))
        there = flat_keys(content)
        for key in ("KD.TEACHER.CONFIG_FILE", "KD.TEACHER.WEIGHTS"):
            # A teacher in the same sweep or project moves with the run.
            before, now = str(old[key]), str(new[key])
            if before and _seen_from(there["OUTPUT_DIR"], before) == _seen_from(cfg.OUTPUT_DIR, now):
                old[key] = now
        classes = there.get("DATASETS.CLASSES")
        if classes:  # runs of earlier versions have none
            old["DATASETS.CLASSES"], new["DATASETS.CLASSES"] = classes, [*cfg.DATASETS.CLASSES]
        differing = [
            f"{key}: {old.get(key, 'absent')} there, {new.get(key, 'absent')} now"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]
        if differing:
            raise ValueError(
                f"The run in '{self.path}' had another config: {'; '.join(differing)}. Resume it with its "
                "own, or choose another OUTPUT_DIR."
            )

    def write_config(self, cfg: CfgNode) -> None:
        """Writes ``config.yaml`` and, of a distillation, ``teacher.yaml``, both with all defaults.

        Raises:
            FileNotFoundError: there is no config of the teacher.
        """
        texts = {self.config_file: cfg.dump()}
        teacher = cfg.KD.TEACHER.CONFIG_FILE
        if cfg.MODEL.META_ARCHITECTURE == "Distiller" and teacher and not is_detectron2_config(teacher):
            texts[self.path / "teacher.yaml"] = load_teacher_config(cfg).dump()
        _write(texts)

    def config(self) -> dict[str, Any]:
        """The values of the run's config that its weights and metrics depend on, by dotted key.

        A key that came with a newer version had no say in the run: that is what its default stands for.

        Raises:
            FileNotFoundError: there is no config.yaml.
            ValueError: it is damaged.
        """
        return deciding_values(self._content())

    def _content(self) -> dict[str, Any]:
        """What config.yaml holds; raises as :meth:`config` does."""
        try:
            content = read_yaml(self.config_file)
        except ValueError as error:
            raise ValueError(f"'{self.config_file}' is damaged: {error}") from error
        if not isinstance(content, dict) or not isinstance(flat_keys(content).get("KD.LOSSES", []), list):
            raise ValueError(
                f"'{self.config_file}' is damaged: it holds no keys and values. Choose another OUTPUT_DIR."
            )
        return content

    def result(self) -> dict[str, Any] | None:
        """What a finished run wrote, else None.

        Raises:
            ValueError: the file is damaged.
        """
        return json.loads(self.result_file.read_text()) if self.result_file.exists() else None

    def metrics(self) -> Metrics | None:
        """What a finished run reached, else None.

        Raises:
            ValueError: ``result.json`` is damaged.
        """
        try:
            result = self.result()
            return None if not self.result_file.exists() else Metrics.of_result(result or {})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"'{self.result_file}' is damaged ({error!r}). Delete it; --resume then evaluates again."
            ) from error

    def write_result(
        self,
        result: dict[str, Any],
        mious: Mapping[str, float | None] | None = None,
        confusion: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Writes all that is known of a run that is done, and last ``result.json``, which says so.

        Args:
            result: content of ``result.json``.
            mious: in percent on the first test set, of weights by file name; a distillation reads them.
            confusion: (K, K) counts of pixels by test set, row = label, column = prediction.
        """
        for name, miou in (mious or {}).items():
            if miou is not None:
                record_miou(self.path / name, miou, result["dataset"])
        files = {}
        if confusion:
            counts = {name: each.tolist() for name, each in confusion.items()}
            files[self.confusion_file] = json.dumps(counts)
        files[self.result_file] = json.dumps(result, indent=2)
        _write(files)


def numbered_folder(path: str, resume: bool) -> str:
    """The first of ``path``, ``path-2``, ``path-3``, ... without a run or, to go on, the last with one.

    Args:
        path: a folder; only what runs leave there is looked at.
        resume: whether a run is to go on, or its weights are wanted.
    """

    def name(number: int) -> str:
        return path if number == 1 else f"{path}-{number}"

    free = next(n for n in itertools.count(1) if not RunFolder(name(n)).config_file.exists())
    return name(max(1, free - 1) if resume else free)


def _write(files: Mapping[Path, str]) -> None:
    for path, text in files.items():
        with atomic_write(path, "w") as file:
            file.write(text)


def deciding_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a run's config that its weights and metrics depend on, by dotted key.

    Args:
        config: content of a config.yaml.
    """
    flat = _defaults(tuple(name for name, _ in DISTILL_LOSS_REGISTRY)) | flat_keys(config)
    return {key: value for key, value in flat.items() if _decides(key, flat["KD.LOSSES"])}


def changed_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Those of :func:`deciding_values` that are no defaults: a new key leaves them as they are."""
    defaults = _defaults(tuple(name for name, _ in DISTILL_LOSS_REGISTRY))
    return {key: value for key, value in deciding_values(config).items() if value != defaults.get(key, ...)}


def _seen_from(folder: str, file: str) -> str:
    return file if "://" in file else os.path.relpath(file, folder)


@functools.cache
def _defaults(losses: tuple[str, ...]) -> dict[str, Any]:
    """Flat, with the keys of these losses, those of plugins among them."""
    return flat_keys(yaml.safe_load(load_config().dump()))


def _decides(key: str, losses: Sequence[str]) -> bool:
    """Whether anything depends on a key in a run with these losses. Others may be of a plugin not loaded."""
    first, *rest = key.split(".")
    if first == "KD" and len(rest) > 1 and rest[0] != "TEACHER":
        return rest[0] in losses
    return not key.startswith(_FREE)
