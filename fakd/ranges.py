"""Which values a setting may have: keys of the config and options of losses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

_KINDS = {int: "whole number", float: "number", bool: "True or False", str: "text"}


@dataclass(frozen=True)
class Range:
    """The values that a setting, or each entry of a list, may have.

    Attributes:
        kind: int, float, bool or str. A whole number is a float too; infinity and nan are none.
        least: the smallest number allowed.
        most: the largest.
        above: what a number must exceed.
        below: what it must stay under.
        choices: all that is allowed.
        listed: a list of such values, instead of one.
        count: its entries; None for any number.
        ascending: no entry is smaller than the one before.
        filled: there is an entry.
        optional: None is allowed, too.
    """

    kind: type = float
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] = ()
    listed: bool = False
    count: int | None = None
    ascending: bool = False
    filled: bool = False
    optional: bool = False

    def check(self, name: str, value: Any) -> None:
        """Raise ValueError, which says what is allowed, unless ``value`` of the setting ``name`` is."""
        if value is None and self.optional:
            return
        if self._holds_all(value) if self.listed else self._holds(value):
            return
        if self.choices and not self.listed:
            raise ValueError(f"{name} is {value!r}; choose from {', '.join(map(str, self.choices))}.")
        raise ValueError(f"{name} is {value!r}, but must be {self}.")

    def _holds_all(self, values: Any) -> bool:
        if not isinstance(values, tuple | list) or self.count not in (None, len(values)):
            return False
        if self.filled and not values:
            return False
        return all(map(self._holds, values)) and (not self.ascending or list(values) == sorted(values))

    def _holds(self, value: Any) -> bool:
        given: type = type(value)
        if given is not self.kind and not (self.kind is float and given is int):
            return False
        if self.choices:
            return value in self.choices
        if self.kind not in (int, float):
            return True
        return (
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        limits = {
            "of at least": self.least,
            "above": self.above,
            "of at most": self.most,
            "below": self.below,
        }
        told = " and ".join(f"{word} {limit}" for word, limit in limits.items() if limit is not None)
        text = _KINDS.get(self.kind, self.kind.__name__) + (f" {told}" if told else "")
        if self.choices:
            text = f"one of {', '.join(map(str, self.choices))}"
        elif self.kind is not bool and not self.listed:
            text = f"a {text}"
        if self.listed:
            many = (
                f"{self.count} values"
                if self.count is not None
                else f"a list of {'one or more ' * self.filled}values"
            )
            many += " in ascending order" if self.ascending else ""
            text = f"{many}, each {text if self.choices or self.kind is bool else f'a {text}'}"
        return f"{text}, or None" if self.optional else text


def range_of(default: Any, **limits: Any) -> Range:
    """The range of a setting whose default shows its kind.

    Args:
        default: a value, or a list of values of one kind; that of an empty list is str.
        limits: further attributes of :class:`Range`.
    """
    if isinstance(default, tuple):
        return Range(**{"kind": type(default[0]) if default else str, "listed": True} | limits)
    return Range(**{"kind": type(default)} | limits)
