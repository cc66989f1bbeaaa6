"""From files, a recipe and key-value pairs to one config, in that order of precedence from the weakest.

defaults < protocol < recipe < config file < command line
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence, Set
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..checkpoint.registry_weights import registry_weights
from ..data.datasets.classes import check_order
from ..data.datasets.colours import as_hex, palette
from ..data.datasets.custom import register_custom
from ..files import shipped
from ..ranges import Range
from ..validation import read_yaml
from .checks import check_channels, check_keys, ranges
from .defaults import KEYS, add_fakd_config
from .protocols import read_protocol

logger = logging.getLogger(__name__)

RECIPES = Path(__file__).parent / "recipes"
NO_RECIPE = "student"  # the recipe of a network that is trained alone
_PATHS = (
    "OUTPUT_DIR",
    "MODEL.WEIGHTS",
    "MODEL.BACKBONE.PRETRAINED",
    "DATALOADER.DECODED",
    *(f"KD.TEACHER.{key}" for key in ("RUN", "CONFIG_FILE", "WEIGHTS", "CACHE")),
)
_OF_A_RECIPE = ("KD.LOSSES", "KD.RECIPE", "MODEL.META_ARCHITECTURE")


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
        config_file: yaml, with ``_BASE_`` as in detectron2, or the name of one that comes with the package
            (:func:`fakd.files.shipped`); "" for the defaults alone.
        opts: ``[KEY, VALUE, ...]``.
        recipe: takes the place of ``KD.RECIPE``.
        allow_plugins: import the PLUGINS that files name, which run as code. For files from elsewhere give
            False, or those that they may name; what ``opts`` names is always imported.
        allow_pickle: let a file set CHECKPOINT.ALLOW_PICKLE. False: only ``opts`` may.

    Raises:
        FileNotFoundError: no such file or recipe.
        KeyError: a key that does not exist, with the nearest that does.
        ValueError: a file that cannot be read, a value that its key may not have, or a key of detectron2's
            that does nothing here.
    """
    config_file = shipped(config_file)
    if config_file and not Path(config_file).is_file():
        raise FileNotFoundError(f"config file {config_file} does not exist (looked from {Path.cwd()}).")
    if len(opts) % 2:
        raise ValueError(
            f"options come in pairs, KEY VALUE; got {len(opts)} words: {' '.join(map(str, opts))}"
        )
    given = read_keys(config_file) if config_file else {}
    pairs = dict(zip(opts[0::2], opts[1::2], strict=True))
    word = _early("KD.RECIPE", {"KD.RECIPE": recipe} if recipe is not None else {}, pairs, given)
    method = read_keys(str(recipe_path(word))) if word else {}

    named_here = _plugins(pairs)
    plugins = [*_plugins(method), *_plugins(given), *named_here]
    if allow_plugins is not True:
        allowed = {_beside(Path(), plugin) for plugin in allow_plugins or ()}
        # Where some may be named, as of a teacher by its student's config, naming them is the only way.
        refused = set(plugins).difference(named_here, allowed)
        _refuse_plugins(config_file or word, refused, flag=allow_plugins is False)
    _import(plugins)
    cfg = get_cfg()
    add_fakd_config(cfg)  # with a node for every loss, those of the plugins among them
    if recipe is not None:
        # The file's distillation keys were meant for its own recipe.
        given = {key: value for key, value in given.items() if key not in _OF_A_RECIPE}
    protocol = _early("PROTOCOL", pairs, given, method)
    parts = read_protocol(protocol, _early("DATASETS.TRAIN", pairs, given, method)) if protocol else []
    sources = [(f"protocol {protocol}", flat_keys(part)) for part in parts]
    sources += [(f"recipe {word}", method), (config_file, given), ("the command line", pairs)]
    for source, values in sources:
        _merge(cfg, _with_teacher(values, source), source)
    for source, values in sources:
        check_keys(cfg, source, values)
    named = {key for _, values in sources for key in values}
    _choose_architecture(cfg, named)
    if not allow_pickle and "CHECKPOINT.ALLOW_PICKLE" not in pairs:
        cfg.CHECKPOINT.ALLOW_PICKLE = False
    cfg.KD.RECIPE = word
    if config_file and "OUTPUT_DIR" not in named:
        cfg.OUTPUT_DIR = own_folder(config_file, word)
    cfg.PLUGINS = tuple(dict.fromkeys(plugins))  # of all sources: what each of them names must be found again
    _register_own_data(cfg)
    _read_training_set(cfg, named)
    _match_registry_weights(cfg, named)
    check_channels(cfg)
    return cfg


def _register_own_data(cfg: CfgNode) -> None:
    # Absolute, because a process elsewhere that is given this config registers them again.
    paths = tuple(str(Path(path).expanduser().resolve()) for path in cfg.DATASETS.CUSTOM or ())
    cfg.DATASETS.CUSTOM = paths or None
    try:
        register_custom(paths)
    except FileNotFoundError as error:
        if not cfg.DATASETS.CLASSES:
            raise
        # A run's config knows its classes: its network serves where the data is not.
        logger.warning(f"{error} Without it no dataset of that file can be read.")


def own_folder(config_file: str, recipe: str) -> str:
    """``output/toyscenes/student_fakd`` for the config ``toyscenes/student.yaml`` and the recipe ``fakd``."""
    file, method = Path(config_file).absolute(), Path(recipe).stem
    return f"output/{file.parent.name}/{file.stem}{f'_{method}' if method not in ('', NO_RECIPE) else ''}"


def _read_training_set(cfg: CfgNode, named: Set[str]) -> None:
    """Takes channels, number, names and colours of the classes from it, where no source says another."""
    known = [name for name in cfg.DATASETS.TRAIN if name in DatasetCatalog.list()]
    if not known:
        return
    metadata = MetadataCatalog.get(known[0])
    if "INPUT.CHANNELS" not in named:
        cfg.INPUT.CHANNELS = metadata.get("channels", 3)
    names = tuple(metadata.get("stuff_classes") or ())
    if "MODEL.SEM_SEG_HEAD.NUM_CLASSES" not in named:
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = len(names) or cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if names and "DATASETS.CLASSES" not in named:
        cfg.DATASETS.CLASSES = names
    if tuple(cfg.DATASETS.CLASSES) == names and "DATASETS.COLOURS" not in named:
        cfg.DATASETS.COLOURS = as_hex(palette(metadata)[: len(names)])


def _match_registry_weights(cfg: CfgNode, given: Set[str]) -> None:
    """Sets the normalisation that weights from the registry were trained with, where no source names another.

    Raises:
        ValueError: the registry has no weights for the network.
    """
    if cfg.MODEL.BACKBONE.PRETRAINED != "registry" or cfg.INPUT.CHANNELS != 3:
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
    """The config of ``KD.TEACHER.CONFIG_FILE``, without a recipe: how it was trained does not matter.

    It may name no PLUGINS but those of ``cfg``, and its CHECKPOINT.ALLOW_PICKLE says nothing.

    Raises:
        FileNotFoundError, KeyError, ValueError: see :func:`load_config`; or its classes are those of
            ``cfg`` in another order.
    """
    file = cfg.KD.TEACHER.CONFIG_FILE
    # A run's config knows its classes. What describes its data may since describe other data.
    known = read_keys(shipped(file)).get("DATASETS.CLASSES") if Path(shipped(file)).is_file() else ()
    opts = ["DATASETS.CUSTOM", "()"] if known else []
    teacher = load_config(file, opts, NO_RECIPE, allow_plugins=cfg.PLUGINS, allow_pickle=False)
    check_order(cfg.DATASETS.CLASSES, teacher.DATASETS.CLASSES, f"The teacher '{file}'")
    return teacher


def _refuse_plugins(source: str, plugins: Set[str], flag: bool = True) -> None:
    if plugins:
        raise ValueError(
            f"{source} names PLUGINS {sorted(plugins)}, which run as code. If you trust them, name them "
            "yourself, as PLUGINS in your own config or on the command line"
            f"{', or give --allow-plugins' if flag else ''}."
        )


def check_recipe(recipe: str | None, config_file: str = "", opts: Sequence[str] = ()) -> None:
    """Refuses a recipe that would run code which neither the config nor the command line names.

    A recipe is passed on as a few numbers; who takes one does not expect a program.

    Args:
        recipe: as in :func:`load_config`; None for the config's own ``KD.RECIPE``.
        config_file, opts: likewise.

    Raises:
        ValueError: it names PLUGINS, or sets CHECKPOINT.ALLOW_PICKLE.
        FileNotFoundError: no such file.
    """
    given = read_keys(shipped(config_file)) if config_file else {}
    pairs = dict(zip(opts[0::2], opts[1::2], strict=False))
    word = recipe if recipe is not None else _early("KD.RECIPE", pairs, given)
    method = read_keys(str(recipe_path(word))) if word else {}
    _refuse_plugins(f"The recipe {word}", {*_plugins(method)} - {*_plugins(given), *_plugins(pairs)})
    if method.get("CHECKPOINT.ALLOW_PICKLE") and "CHECKPOINT.ALLOW_PICKLE" not in {*given, *pairs}:
        raise ValueError(
            f"The recipe {word} sets CHECKPOINT.ALLOW_PICKLE, so that weights could run code. If you trust "
            "them, set it yourself, in your own config or on the command line, or give --allow-plugins."
        )


def recipe_path(word: str) -> Path:
    """The file of a recipe given by name or by path.

    Raises:
        FileNotFoundError: there is none; the message lists those there are.
    """
    path = Path(shipped(word)) if word.endswith((".yaml", ".yml")) else RECIPES / f"{word}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
        raise FileNotFoundError(f"no recipe '{word}' (KD.RECIPE). Known: {known}; or give a path to a .yaml.")
    return path


def read_keys(path: str, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The keys of a yaml with their values, and those of its ``_BASE_``, or several, which are weaker.

    A plugin that lies beside the file that names it is given with its whole path.

    Args:
        path: of the file.
        above: the files that have this one as a base.

    Raises:
        FileNotFoundError: the file, or a base, does not exist.
        ValueError: the file does not hold keys and their values, or is a base of itself.
    """
    file = Path(path)
    if above and not file.is_file():
        raise FileNotFoundError(f"{above[-1]}: its _BASE_ '{path}' does not exist.")
    if file.resolve() in [each.resolve() for each in above]:
        raise ValueError(f"{above[0]}: its _BASE_ leads back to '{path}', so that it has no end.")
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise ValueError(f"{path} does not hold keys and their values.")
    bases = content.pop("_BASE_", [])
    bases = bases if isinstance(bases, list) else [bases]
    if not all(isinstance(base, str) for base in bases):
        raise ValueError(f"{path}: _BASE_ is {bases!r}, but must be a path, or a list of paths.")
    keys: dict[str, Any] = {}
    for base in bases:
        beside = file.parent / Path(base).expanduser()
        keys |= read_keys(str(beside) if beside.is_file() else shipped(base), (*above, file))
    own = flat_keys(content)
    if "PLUGINS" in own:
        own["PLUGINS"] = _plugins(own, file.parent)
    return keys | own


def _plugins(source: Mapping[str, Any], folder: Path = Path()) -> tuple[str, ...]:
    return tuple(_beside(folder, plugin) for plugin in _early("PLUGINS", source))


def _beside(folder: Path, plugin: str) -> str:
    """The whole path of a plugin that is a file in a folder; modules and other files as they are."""
    path = folder / plugin
    path = path if path.is_file() else Path(shipped(plugin))
    return str(path.resolve()) if plugin.endswith(".py") and path.is_file() else plugin


def flat_keys(content: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as full names, ``{"KD.CWD.TAU": 1.0}``."""
    keys: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            keys |= flat_keys(value, f"{prefix}{name}.")
        else:
            keys[f"{prefix}{name}"] = value
    return keys


def _early(key: str, *sources: Mapping[str, Any]) -> Any:
    """The value of a key before there is a config: of the first source that has it, or its default.

    Raises:
        ValueError: the value is none that the key may have.
    """
    found = [source[key] for source in sources if key in source]
    return _fitted(key, found[0], KEYS[key].range) if found else KEYS[key].default


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


def _with_teacher(values: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """A source with the config and the weights for which its ``KD.TEACHER.RUN`` stands.

    Raises:
        ValueError: it names others, too.
    """
    keys = {"KD.TEACHER.CONFIG_FILE": "config.yaml", "KD.TEACHER.WEIGHTS": "model_final.pth"}
    run = _early("KD.TEACHER.RUN", values)
    if not run:
        # What it names itself is not of the run that a weaker source names.
        return {**values, "KD.TEACHER.RUN": ""} if any(values.get(key) for key in keys) else values
    found = {}
    for key, name in keys.items():
        found[key] = _early(key, values) or str(Path(run) / name)
        if Path(found[key]).resolve().parent != Path(run).resolve():
            raise ValueError(
                f"{source}: KD.TEACHER.RUN is '{run}', but {key} is '{found[key]}', which is not in "
                "that folder. Leave one of them out."
            )
    return {**values, **found}


def _merge(cfg: CfgNode, values: Mapping[str, Any], source: str) -> None:
    """Set keys of a config.

    Raises:
        KeyError: there is no such key.
        ValueError: the key may not have the value.
    """
    known, allowed = flat_keys(cfg), ranges()
    for key, given in values.items():
        if key not in known:
            raise KeyError(_unknown(key, known, source))
        try:
            cfg.merge_from_list([key, _fitted(key, given, allowed.get(key))])
        except ValueError as error:
            raise ValueError(f"{source}: {' '.join(str(error).split())}") from error


def _fitted(key: str, given: Any, allowed: Range | None) -> Any:
    """A value as its key has it where no one can be mistaken: 4 for 4.0, one word for a list of one.

    Raises:
        ValueError: the key may not have it.
    """
    value = CfgNode._decode_cfg_value(given)
    if allowed is None:
        return value
    if allowed.listed and isinstance(value, str):
        value = (value,)
    allowed.check(key, value)
    if key in _PATHS:
        return os.path.expanduser(value)  # the shell's is not in a file, nor always on its command line
    return float(value) if allowed.kind is float and isinstance(value, int) else value


def _unknown(key: str, known: Iterable[str], source: str) -> str:
    near = difflib.get_close_matches(key, sorted(known), n=3, cutoff=0.6)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"{source}: there is no config key {key}.{hint}"
