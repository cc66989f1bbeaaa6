"""What a setting may be, and the sentence that says so."""

import math

import pytest

from fakd.ranges import Range, range_of


@pytest.mark.parametrize(
    ("kind", "good", "bad", "allowed"),
    [
        (Range(int, least=1), [1, 10**9], [0, -1, 1.0, True, "1", None], "a whole number of at least 1"),
        (
            Range(float, above=0, most=1),
            [1, 1.0, 1e-9],
            [0, 0.0, 1.1, math.nan, math.inf, "1", True],
            "a number above 0 and of at most 1",
        ),
        (Range(float), [0, -1e300], [math.nan, -math.inf, [1.0]], "a number"),
        (Range(float, least=0, below=1), [0, 0.999], [1, -0.1], "a number of at least 0 and below 1"),
        (Range(bool), [True, False], [0, 1, "True", None], "True or False"),
        (Range(str), ["", "x"], [0, None, ["x"]], "a text"),
        (Range(float, least=0, optional=True), [None, 0], [-1, "None"], "a number of at least 0, or None"),
        (
            Range(int, least=1, listed=True, count=2),
            [(1, 2), [3, 4]],
            [(1,), (1, 2, 3), (0, 1), (1.0, 2), 1, "12", None, {1: 1, 2: 2}],
            "2 values, each a whole number of at least 1",
        ),
        (
            Range(int, listed=True, filled=True),
            [(1,), [1, 2]],
            [(), []],
            "a list of one or more values, each a whole number",
        ),
        (
            Range(float, above=0, listed=True, count=2, ascending=True),
            [(0.5, 2.0), (1, 1)],
            [(2.0, 0.5), (0.0, 1.0), (1.0, "2")],
            "2 values in ascending order, each a number above 0",
        ),
        (
            Range(str, listed=True),
            [(), ("a",)],
            ["a", (1,), None],
            "a list of values, each a text",
        ),
        (
            Range(str, listed=True, choices=("png", "json")),
            [(), ("json", "png")],
            [("gif",), "png", (["png"],)],
            "a list of values, each one of png, json",
        ),
    ],
)
def test_good_values_pass_and_others_are_told_with_what_is_allowed(kind, good, bad, allowed):
    for value in good:
        kind.check("KEY", value)
    for value in bad:
        with pytest.raises(ValueError) as error:
            kind.check("KEY", value)
        assert str(error.value) == f"KEY is {value!r}, but must be {allowed}."


def test_a_choice_is_told_with_the_others():
    choice = range_of("a", choices=("a", "b"))
    choice.check("KEY", "b")
    for value in ("c", 1, None, ("a",)):
        with pytest.raises(ValueError, match="^KEY is .*; choose from a, b.$"):
            choice.check("KEY", value)


def test_a_default_shows_its_kind():
    assert range_of(1) == Range(int) and range_of(1.0) == Range(float) and range_of(True) == Range(bool)
    assert range_of((1, 2), least=1) == Range(int, least=1, listed=True)
    assert range_of(()) == Range(str, listed=True)
