"""One run of a sweep."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from fakd.config import load_config


@dataclass(frozen=True)
class Trial:
    """One run of a sweep, in words that travel to any process.

    Attributes:
        pair, run, seed: its place in the report.
        method: recipe.
        values: what the axes of config keys give it.
        config_file, opts: what its config is made of; OUTPUT_DIR is in ``opts``.
        max_seconds: see :func:`fakd.engine.run`.
        teacher: folder of the run of its teacher in this sweep; "" if there is none.
        given: its weights were trained elsewhere, so it is evaluated only.
    """

    pair: str
    run: str
    seed: int
    method: str
    config_file: str
    opts: tuple[str, ...]
    values: Mapping[str, Any] = field(default_factory=dict, compare=False)
    max_seconds: float = math.inf
    teacher: str = ""
    given: bool = False

    def __str__(self) -> str:
        return " ".join(filter(None, (self.pair, self.run, f"seed {self.seed}")))

    @property
    def folder(self) -> Path:
        """OUTPUT_DIR."""
        return Path(self.opts[self.opts.index("OUTPUT_DIR") + 1])

    @property
    def finished(self) -> bool:
        """Whether its result is there."""
        return (self.folder / "result.json").exists()

    @property
    def checkpoints(self) -> list[Path]:
        """From which it can be resumed, the newest last."""
        return sorted(self.folder.glob("model_" + "[0-9]" * 7 + ".pth"))

    @property
    def reached(self) -> int:
        """Iterations that its newest checkpoint has behind it."""
        states = self.checkpoints
        return int(states[-1].stem.removeprefix("model_")) + 1 if states else 0

    def with_values(self, values: Mapping[str, Any]) -> Trial:
        """The same run with other values of its keys."""
        opts = list(self.opts)
        for key, value in values.items():
            opts[opts.index(key) + 1] = str(value)
        return dataclasses.replace(self, opts=tuple(opts), values=values)

    def config(self) -> CfgNode:
        """The resolved config, frozen; also registers its datasets and plugins in this process."""
        cfg = load_config(self.config_file, list(self.opts), self.method)
        cfg.freeze()
        return cfg
