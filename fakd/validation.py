"""Files held to a pydantic model: a mistake is told in one line, with file, place, finding and remedy.

A model is a subclass of :class:`Strict`. Lists are ``list[...]``, or ``tuple[...]`` with
``Field(strict=False)``, because yaml and JSON have lists alone.
"""

import copy
import difflib
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

_SHOWN = 3  # mistakes in one message
_LONGEST = 60  # characters of a value in a message
# pydantic's types, in the terms of a yaml file.
_ALLOWED = {
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "keys with values",
    "mapping_type": "keys with values",
    "model_type": "keys with values",
    "string_type": "a text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
}


class Strict(BaseModel):
    """What a file or a part of one may say: nothing but its fields, and each of exactly its type."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)

    @model_validator(mode="before")
    @classmethod
    def _know_every_key(cls, given: Any) -> Any:
        """Like ``extra="forbid"``, with the nearest key that there is."""
        if isinstance(given, Mapping):
            for key in given:
                if key not in cls.model_fields:
                    near = difflib.get_close_matches(str(key), cls.model_fields, 1)
                    hint = f" Did you mean '{near[0]}'?" if near else ""
                    known = ", ".join(cls.model_fields)
                    raise ValueError(f"there is no key {_short(key)}.{hint} Known: {known}")
        return given


M = TypeVar("M", bound=BaseModel)


def parse(model: type[M], content: Any, source: str | Path) -> M:
    """Content of a file as its model.

    Args:
        content: as yaml or JSON have it.
        source: what a message calls it, best the path of the file.

    Raises:
        ValueError: the content is not what the model allows; one line.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ValueError(validation_message(error, source)) from error


def validation_message(error: ValidationError, source: str | Path) -> str:
    """One line with the place, the value found and what is allowed of each mistake."""
    told = [_sentence(each) for each in error.errors(include_url=False)]
    more = f"; and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return f"{source}: {'; '.join(told[:_SHOWN])}{more}"


def read_yaml(path: str | Path) -> Any:
    """The content of a yaml file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no yaml, or a key stands twice in it; one line, with file and line.
    """
    return _read(path, "yaml", lambda text: copy.deepcopy(_yaml(text)))


@functools.lru_cache(maxsize=64)
def _yaml(text: str) -> Any:
    """Kept, because the configs of a sweep's trials have their bases in common, and parsing takes long."""
    return yaml.load(text, _Loader)


class _Loader(yaml.SafeLoader):
    """PyYAML's, which drops all but the last of the values that a key is given; here that is an error."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        # Before a merge (<<) adds the keys of other mappings, which those of this one override.
        node = super().compose_mapping_node(anchor)
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            is_text = key.tag == "tag:yaml.org,2002:value"  # a plain =, which has no constructor
            name, line = key.value if is_text else self.construct_object(key), key.start_mark.line + 1
            if name in lines:
                raise ValueError(
                    f"line {line}: the key {_short(name)} stands in line {lines[name]} already; "
                    "keep one of them"
                )
            lines[name] = line
        return node


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON; one line, with file and line.
    """
    return _read(path, "JSON", json.loads)


def _read(path: str | Path, kind: str, load: Callable[[str], Any]) -> Any:
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file '{path}' (looked from {Path.cwd()}).")
    try:
        return load(Path(path).read_text(encoding="utf-8"))
    except OSError:
        raise
    except RecursionError as error:
        raise ValueError(f"{path}: cannot be read as {kind}: it is nested too deeply.") from error
    except Exception as error:  # PyYAML's constructors raise any kind of error, such as IndexError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: cannot be read as {kind}: {reason}") from error


def _sentence(error: Any) -> str:
    place = _place(error["loc"])
    if error["type"] == "value_error":  # of a validator of a model, which speaks for itself
        text = " ".join(str(error["ctx"]["error"]).split())
        return f"{place}: {text}" if place else text
    if error["type"] == "missing":
        return f"{place} is missing"
    if error["type"] == "literal_error":
        choices = error["ctx"]["expected"].replace("'", "")
        return f"{place} is {_short(error['input'])}; choose from {choices}"
    allowed = _ALLOWED.get(error["type"], error["msg"].removeprefix("Input should be "))
    return f"{place or 'the content'} is {_short(error['input'])}, but must be {allowed}"


def _place(location: tuple[int | str, ...]) -> str:
    """As in ``pairs.x.teacher.weights`` or ``seeds[0]``."""
    words = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    text = "".join(words).removeprefix(".")
    return text if text.isprintable() else repr(text)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
