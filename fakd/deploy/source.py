"""Selects the trained student of a command: a run's folder, or a config and weights."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode

from fakd.config import NO_RECIPE, load_config
from fakd.engine.evaluate import load_trained
from fakd.modeling import Segmentor


def add_source(parser: argparse.ArgumentParser) -> None:
    """Adds ``--run``, ``--config-file``, ``--weights``, and config keys as last words are ``--opts``."""
    add = parser.add_argument_group("student", "either --run, or --config-file and --weights").add_argument
    add("--run", metavar="DIR", help="folder of a run, with config.yaml and model_final.pth")
    add("--config-file", metavar="FILE", help="config of the student, or of its distillation")
    add("--weights", metavar="FILE", help="weights of the student; with --run, in place of model_final.pth")
    add("--allow-plugins", action="store_true", help="run the PLUGINS named in the config")
    add("--allow-pickle", action="store_true", help="open pickled weights, which can run any code")
    add("--opts", nargs="*", default=[], metavar="KEY VALUE", help="config keys, such as MODEL.DEVICE cpu")


def read_source(
    run: str | Path | None = None,
    config_file: str | None = None,
    weights: str | Path | None = None,
    opts: Sequence[str] = (),
    *,
    allow_plugins: bool | Sequence[str] = False,
    allow_pickle: bool = False,
) -> tuple[CfgNode, str]:
    """The config and the path of the weights.

    A run or a config may come from elsewhere: it runs no code unless the caller allows it.

    Args:
        run: folder of a run.
        config_file: in its place, with ``weights``.
        weights: in place of the run's ``model_final.pth``.
        opts: ``[KEY, VALUE, ...]``.
        allow_plugins, allow_pickle: see :func:`fakd.config.load_config`; ``allow_pickle`` is what the config
            then says.

    Raises:
        FileNotFoundError: the folder holds no run, or no weights yet.
        ValueError: neither or both ways are given, or the config names PLUGINS that are not allowed.
    """
    if bool(run) == bool(config_file):
        raise ValueError("Name the student by --run DIR, or by --config-file FILE and --weights FILE.")
    if run:
        config_file = str(Path(run, "config.yaml"))
        if not Path(config_file).is_file():
            raise FileNotFoundError(f"'{run}' holds no run: there is no config.yaml in it.")
        weights = weights or Path(run, "model_final.pth")
        if not Path(weights).is_file():
            raise FileNotFoundError(
                f"There is no '{weights}': the run is not finished. --weights names another file."
            )
    assert config_file is not None
    if not weights:
        raise ValueError(f"--config-file {config_file} needs --weights FILE.")
    opts = [*opts, "CHECKPOINT.ALLOW_PICKLE", "True"] if allow_pickle else opts
    cfg = load_config(
        config_file, opts, recipe=NO_RECIPE, allow_plugins=allow_plugins, allow_pickle=allow_pickle
    )
    return cfg, str(weights)


def load_student(cfg: CfgNode, weights: str) -> Segmentor:
    """The student alone in evaluation mode.

    Raises:
        FileNotFoundError: there are no weights.
        ValueError: the weights are not of this config; the message lists what does not fit.
    """
    network = load_trained(cfg, weights)
    if not isinstance(network, Segmentor):
        raise ValueError(
            f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} is no network of this project."
        )
    return network
