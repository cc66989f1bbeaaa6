"""From files, a recipe and key-value pairs to one config, in that order of precedence from the weakest.

defaults < protocol < recipe < config file < command line
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import sys
from collections.abc import Mapping, Sequence, Set
from functools import reduce
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg

from ..checkpoint.registry_weights import registry_weights
from ..data.datasets.custom import register_custom
from .defaults import add_fakd_config
from .protocols import read_protocol

logger = logging.getLogger(__name__)

RECIPES = Path(__file__).parent / "recipes"
NO_RECIPE = "student"  # the recipe of a network that is trained alone


def load_config(
    config_file: str = "",
    opts: Sequence[str] = (),
    recipe: str | None = None,
    *,
    allow_plugins: bool | Sequence[str] = True,
    allow_pickle: bool = True,
) -> CfgNode:
    """The config of a run, not frozen.

    Args:
        config_file: yaml, with ``_BASE_`` as in detectron2; "" for the defaults alone.
        opts: ``[KEY, VALUE, ...]``.
        recipe: takes the place of ``KD.RECIPE``.
        allow_plugins: import the PLUGINS that files name, which run as code. For files from elsewhere give
            False, or those that they may name; what ``opts`` names is always imported.
        allow_pickle: let a file set CHECKPOINT.ALLOW_PICKLE. False: only ``opts`` may.

    Raises:
        FileNotFoundError: no such file or recipe.
        KeyError: a key that does not exist, with the nearest that does.
        ValueError: a value of another type than the key's default.
    """
    if config_file and not Path(config_file).is_file():
        raise FileNotFoundError(f"config file {config_file} does not exist (looked from {Path.cwd()}).")
    if len(opts) % 2:
        raise ValueError(f"options come in pairs, KEY VALUE; got {len(opts)} words: {' '.join(opts)}")
    given = _read(config_file) if config_file else CfgNode()
    pairs = dict(zip(opts[0::2], opts[1::2], strict=True))

    word = recipe if recipe is not None else pairs.get("KD.RECIPE", given.get("KD", {}).get("RECIPE", ""))
    method = _read(str(recipe_path(word))) if word else CfgNode()

    cfg = get_cfg()
    plugins = [plugin for source in (method, given, pairs) for plugin in _plugins(source)]
    if allow_plugins is not True:
        _refuse_plugins(config_file or word, set(plugins).difference(_plugins(pairs), allow_plugins or ()))
    _import(plugins)
    add_fakd_config(cfg)  # with a node for every loss, those of the plugins among them
    protocol = pairs.get("PROTOCOL", given.get("PROTOCOL", ""))
    train_sets = CfgNode._decode_cfg_value(
        pairs.get("DATASETS.TRAIN", given.get("DATASETS", {}).get("TRAIN", ()))
    )
    parts = [CfgNode(part) for part in read_protocol(protocol, train_sets)] if protocol else []
    for part in parts:
        _merge(cfg, part, f"protocol {protocol}")
    _merge(cfg, method, f"recipe {word}")
    if recipe is not None:
        # What the file says of distillation was meant for its own recipe.
        given = _without_losses(given)
    _merge(cfg, given, config_file)
    known = _keys(cfg)
    for key in pairs:
        if key not in known:
            raise KeyError(_unknown(key, known, "the command line"))
    for key, value in pairs.items():
        *path, name = key.split(".")
        default = reduce(getattr, path, cfg)[name]
        cfg.merge_from_list([key, _fitted(CfgNode._decode_cfg_value(value), default)])
    named = set(pairs).union(*map(_keys, (*parts, method, given)))
    _match_registry_weights(cfg, named)
    _choose_architecture(cfg, named)
    if not allow_pickle and "CHECKPOINT.ALLOW_PICKLE" not in pairs:
        cfg.CHECKPOINT.ALLOW_PICKLE = False
    cfg.KD.RECIPE = word
    cfg.PLUGINS = tuple(dict.fromkeys(plugins))  # of all sources: what each of them names must be found again
    custom = cfg.DATASETS.CUSTOM or ()
    # Absolute, because a process elsewhere that is given this config registers them again.
    paths = tuple(str(Path(path).resolve()) for path in ((custom,) if isinstance(custom, str) else custom))
    register_custom(paths)
    cfg.DATASETS.CUSTOM = paths or None
    return cfg


def _match_registry_weights(cfg: CfgNode, given: Set[str]) -> None:
    """Sets the normalisation that weights from the registry were trained with, where no source names another.

    Raises:
        ValueError: the registry has no weights for the network.
    """
    if cfg.MODEL.BACKBONE.PRETRAINED != "registry":
        return
    try:
        weights = registry_weights(cfg.MODEL.BACKBONE.TIMM_NAME)
    except ValueError as error:
        raise ValueError(f"MODEL.BACKBONE.PRETRAINED: {error}") from error
    reverse = -1 if cfg.INPUT.FORMAT == "BGR" else 1
    for key, value in (("PIXEL_MEAN", weights.pixel_mean), ("PIXEL_STD", weights.pixel_std)):
        if f"MODEL.{key}" not in given:
            cfg.MODEL[key] = value[::reverse]
        elif tuple(cfg.MODEL[key]) != value[::reverse]:
            logger.warning(
                f"MODEL.{key} is {tuple(cfg.MODEL[key])}, but the registry's weights of "
                f"{cfg.MODEL.BACKBONE.TIMM_NAME} were trained with "
                f"{value[::reverse]}. Leave it out to have that."
            )
    if reverse < 0:
        logger.warning(
            "INPUT.FORMAT is BGR, but the registry's weights were trained on RGB. Set INPUT.FORMAT to RGB."
        )


def load_teacher_config(cfg: CfgNode) -> CfgNode:
    """The config of ``KD.TEACHER.CONFIG_FILE``, without a recipe: how it was distilled itself plays no part.

    It may name no PLUGINS but those of ``cfg``, and its CHECKPOINT.ALLOW_PICKLE says nothing.

    Raises:
        FileNotFoundError, KeyError, ValueError: see :func:`load_config`.
    """
    teacher = cfg.KD.TEACHER.CONFIG_FILE
    return load_config(teacher, recipe=NO_RECIPE, allow_plugins=cfg.PLUGINS, allow_pickle=False)


def _refuse_plugins(source: str, plugins: Set[str]) -> None:
    if plugins:
        raise ValueError(
            f"{source} names PLUGINS {sorted(plugins)}, which run as code. If you trust them, name them "
            "yourself, as PLUGINS in your own config or on the command line, or give --allow-plugins."
        )


def recipe_path(word: str) -> Path:
    """The file of a recipe given by name or by path.

    Raises:
        FileNotFoundError: there is none; the message lists those there are.
    """
    path = Path(word) if word.endswith((".yaml", ".yml")) else RECIPES / f"{word}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
        raise FileNotFoundError(f"no recipe '{word}' (KD.RECIPE). Known: {known}; or give a path to a .yaml.")
    return path


def _read(path: str) -> CfgNode:
    try:
        return CfgNode(CfgNode.load_yaml_with_base(path))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: its _BASE_ '{error.filename}' does not exist.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as yaml: {error}") from error
    except (TypeError, AttributeError) as error:  # of an empty file, a list or a single word
        raise ValueError(f"{path}, or a _BASE_ of it, does not hold keys and their values.") from error


def _choose_architecture(cfg: CfgNode, named: Set[str]) -> None:
    """Losses make the network a Distiller, and what a source names must agree with them.

    Raises:
        ValueError: the losses would not be trained, or there is none for the teacher.
    """
    losses = ", ".join(cfg.KD.LOSSES)
    if losses and "MODEL.META_ARCHITECTURE" not in named:
        cfg.MODEL.META_ARCHITECTURE = "Distiller"
    architecture = cfg.MODEL.META_ARCHITECTURE
    if losses and architecture != "Distiller":
        raise ValueError(
            f"KD.LOSSES names {losses}, but MODEL.META_ARCHITECTURE is '{architecture}', which trains "
            "without a teacher. Leave MODEL.META_ARCHITECTURE out (losses imply the Distiller)."
        )
    if not losses and architecture == "Distiller":
        raise ValueError(
            "MODEL.META_ARCHITECTURE is 'Distiller', but KD.LOSSES names no loss: name some, or a recipe "
            "(KD.RECIPE), or leave MODEL.META_ARCHITECTURE out."
        )


def _plugins(source: Mapping[str, Any]) -> Sequence[str]:
    plugins = CfgNode._decode_cfg_value(source.get("PLUGINS", ()))
    return (plugins,) if isinstance(plugins, str) else plugins


def _import(plugins: Sequence[str]) -> None:
    """Import modules by name or, where it ends in .py, by path.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a plugin raised, whatever it was.
    """
    for plugin in plugins:
        is_path = plugin.endswith(".py")
        if is_path and not Path(plugin).is_file():
            raise FileNotFoundError(f"PLUGINS: there is no file {plugin} (looked from {Path.cwd()}).")
        try:
            if is_path:
                _import_file(Path(plugin).resolve())
            else:
                import_module(plugin)
        except Exception as error:
            raise ValueError(
                f"PLUGINS: '{plugin}' cannot be imported: {type(error).__name__}: {error}"
            ) from error


def _import_file(path: Path) -> None:
    # Two files of one name are two modules.
    name = f"fakd_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    spec = spec_from_file_location(name, path)
    assert spec and spec.loader  # there are none only for endings Python does not know
    sys.modules[name] = module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]  # half of it is there
        raise


def _without_losses(given: CfgNode) -> CfgNode:
    given = given.clone()
    kd = given.get("KD", CfgNode())
    for key in ("LOSSES", "RECIPE"):
        kd.pop(key, None)
    given.get("MODEL", CfgNode()).pop("META_ARCHITECTURE", None)
    return given


def _merge(cfg: CfgNode, other: CfgNode, source: str) -> None:
    known = _keys(cfg)
    for key in _keys(other):
        if key not in known:
            raise KeyError(_unknown(key, known, source))
    cfg.merge_from_other_cfg(_fit_node(other, cfg))


def _fit_node(node: CfgNode, defaults: CfgNode) -> CfgNode:
    fitted = CfgNode()
    for name, value in node.items():
        fit = _fit_node if isinstance(value, CfgNode) else _fitted
        fitted[name] = fit(value, defaults[name])
    return fitted


def _fitted(value: Any, default: Any) -> Any:
    """A value as its key has it where no one can be mistaken: 4 for 4.0, one word for a tuple of one."""
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if isinstance(default, tuple) and isinstance(value, str):
        return (value,)
    return value


def _keys(node: CfgNode, prefix: str = "") -> set[str]:
    keys: set[str] = set()
    for name, value in node.items():
        keys |= _keys(value, f"{prefix}{name}.") if isinstance(value, CfgNode) else {prefix + name}
    return keys


def _unknown(key: str, known: set[str], source: str) -> str:
    near = difflib.get_close_matches(key, sorted(known), n=3, cutoff=0.6)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"{source}: there is no config key {key}.{hint}"
