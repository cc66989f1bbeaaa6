"""Protocols: how a paper trains and tests, chosen by one word.

A protocol is a yaml of config keys by dataset: what it says under ``all``, then what it says under the name
of the dataset that is trained on.
"""

from pathlib import Path
from typing import Any

from ...validation import read_yaml

_FOLDER = Path(__file__).parent


def read_protocol(word: str, train_sets: tuple[str, ...] | list[str]) -> list[dict[str, Any]]:
    """The config keys of a protocol, the later ones stronger.

    Args:
        word: name of a file beside this one, or the path of a yaml.
        train_sets: ``DATASETS.TRAIN``; the first decides.

    Raises:
        FileNotFoundError: there is no such protocol; the message lists those there are.
        ValueError: the file is no protocol.
    """
    path = Path(word) if word.endswith((".yaml", ".yml")) else _FOLDER / f"{word}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in _FOLDER.glob("*.yaml")))
        raise FileNotFoundError(
            f"no protocol '{word}' (PROTOCOL). Known: {known}; or give a path to a .yaml."
        )
    sections = read_yaml(path)
    if not isinstance(sections, dict) or not all(isinstance(keys, dict) for keys in sections.values()):
        raise ValueError(f"{path}: a protocol holds config keys under 'all' or under names of datasets.")
    dataset = train_sets[0].rpartition("_")[0] if train_sets else ""
    return [sections[name] for name in ("all", dataset) if name in sections]
