"""Predictions and activations of the runs' networks on test images; needs the weights and the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from matplotlib import colormaps
from torch import nn
from tqdm import tqdm

from fakd.config import NO_RECIPE, load_config
from fakd.engine import load_trained
from fakd.errors import message_of
from fakd.modeling.build import build_teacher
from fakd.predict.panels import draw_panels
from fakd.predict.samples import Samples, activation, enlarged, load_samples, predictions
from fakd.predict.tiles import Tile, draw_tiles

from .log_plots import covariances
from .page import LeftOut, Picture
from .table import TEACHER, RunTable

_MISSING = "missing from the pictures of predictions"
_ROWS = 4  # images whose predictions are shown
_MAPS = 3  # images whose activations are shown


@dataclass
class NetworkViews:
    """Examples and activations of one network per run; everything is computed once, when needed.

    Attributes:
        table: the runs.
        num_images: of the first test set that the networks are shown.
        left_out: takes a sentence for each network that is not at hand.
        trust: ``allow_plugins`` and ``allow_pickle`` of :func:`fakd.config.load_config`.
    """

    table: RunTable
    num_images: int
    left_out: list[str]
    trust: Mapping[str, Any]

    def panels(self) -> Picture:
        """Predictions and maps of errors on the images where the runs differ most.

        Raises:
            LeftOut: no weights, or no data.
        """
        firsts = self.table.firsts()
        seeds = ", ".join(f"{name} {firsts[name]['seed']}" for name in self._networks if name in firsts)
        caption = (
            "Image, truth, and what each network makes of it; below, its errors beside those of "
            f"{self.table.reference}. Seeds: {seeds}."
        )
        return Picture("panels", self._drawn[0], caption, is_photo=True)

    def activations(self) -> Picture:
        """The length of the feature in front of the classifier, without and with covariance.

        Raises:
            LeftOut: no weights, or no data.
        """
        caption = (
            "The length |s| of the feature in front of the classifier, at every pixel: how strongly the "
            "network responds there. “augmented” is the same with covariance, the root mean square length of "
            "a feature drawn as FAKD draws it: the root of |s|² + λ tr Σ, with the Σ of the pixel's label "
            "and the λ and Σ of the end of training. Each network has its own scale, from its shortest "
            "(dark) to its longest (bright). FAKD's paper shows such maps without saying how they are made; "
            "this is this project's definition."
        )
        return Picture("activations", self._draw_activations(self._drawn[1][:_MAPS]), caption, is_photo=True)

    @cached_property
    def _networks(self) -> dict[str, tuple[CfgNode, nn.Module]]:
        """A network per name, and the teacher, if its weights are still where the runs found them.

        Raises:
            LeftOut: there is none.
        """
        firsts, found = self.table.firsts(), {}
        firsts = {name: row for name, row in firsts.items() if row["folder"] is not None}
        reasons = []
        for name, row in firsts.items():
            try:
                cfg = self._config(row["folder"])
                weights = row["folder"] / "model_final.pth"
                if cfg.MODEL.WEIGHTS and not weights.exists():
                    weights = cfg.MODEL.WEIGHTS  # of a network that was only evaluated
                found[name] = cfg, load_trained(cfg, str(weights))
            except (OSError, ValueError, KeyError) as error:
                reasons.append(f"{row['source']}: {_MISSING}: {message_of(error)}")
        distilled = [row for name, row in firsts.items() if row["teacher"] and name in found]
        if not self.table.teachers and distilled:
            try:
                cfg = self._config(distilled[0]["folder"])
                teacher = build_teacher(cfg)
                cfg.INPUT.FORMAT = teacher.input_format
                found = {TEACHER: (cfg, teacher.eval())} | found
            except (OSError, ValueError, KeyError) as error:
                reasons.append(f"The teacher of {distilled[0]['source']}: {_MISSING}: {message_of(error)}")
        if not found:
            raise LeftOut(" ".join(["the weights of no run are at hand.", *reasons[:1]]))
        self.left_out += reasons
        return found

    @cached_property
    def _samples(self) -> Samples:
        try:
            return load_samples(self.table.datasets[0], self.num_images)
        except (OSError, ValueError, KeyError) as error:
            raise LeftOut(message_of(error)) from error

    @cached_property
    def _drawn(self) -> tuple[bytes, list[int]]:
        """The panels, and which images they show."""
        networks, samples = self._networks, self._samples  # without networks no data is loaded
        with tqdm(total=len(networks) * len(samples.records), unit="image", desc="Predicting") as bar:
            found = {
                name: predictions(cfg, network, samples.records, bar.update)
                for name, (cfg, network) in networks.items()
            }
        return draw_panels(
            samples.images,
            samples.truths,
            found,
            classes=samples.classes,
            palette=samples.palette,
            ignore_value=samples.void,
            count=_ROWS,
            compare=[name for name in found if name not in (TEACHER, *self.table.teachers)] or None,
            baseline=self.table.baseline if self.table.baseline in found else "",
        )

    def _draw_activations(self, chosen: Sequence[int]) -> bytes:
        networks, samples = self._networks, self._samples
        added = {name: spread for name in networks if (spread := self._added(name))}
        titles = ["image"]
        for name in networks:
            titles += [name, f"{name}, augmented"] if name in added else [name]
        rows = []
        for i in chosen:
            image, truth = samples.images[i], samples.truths[i]
            row = [Tile(image)]
            for name, (cfg, network) in networks.items():
                square = enlarged(activation(cfg, network, samples.records[i]), truth.shape)
                maps = [np.sqrt(square)]
                if name in added:
                    maps.append(np.sqrt(square + np.array(added[name])[truth]))
                low, high = np.min(maps), np.max(maps)
                for values in maps:
                    shade = colormaps["viridis"]((values - low) / max(high - low, 1e-12), bytes=True)[..., :3]
                    row.append(Tile(shade, f"{values.min():.2f} to {values.max():.2f}"))
            rows.append(row)
        return draw_tiles(rows, titles, "Length of the feature, in every network's own scale: dark is short.")

    def _added(self, name: str) -> list[float]:
        """What covariance adds to the squared length of a feature, by label (void nothing); empty without."""
        if name not in self.table.logs:
            return []
        log = self.table.logs[name].get(self.table.firsts()[name]["seed"])
        if log is None or not (losses := covariances([log])):
            return []
        loss, last = losses[0], log.ffill().iloc[-1]
        traces = [last[f"{loss}/lambda"] * last.get(f"{loss}/trace/{c}", 0.0) for c in self._samples.classes]
        return traces + [0.0] * (len(self._samples.palette) - len(traces))

    def _config(self, folder: Path) -> CfgNode:
        """That of the network alone, on a device that this machine has."""
        cfg: Any = load_config(str(folder / "config.yaml"), recipe=NO_RECIPE, **self.trust)
        if not torch.cuda.is_available():
            cfg.MODEL.DEVICE = "cpu"
        return cfg
