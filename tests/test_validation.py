"""What is wrong with a file, in one line."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from fakd.validation import Strict, parse, read_json, read_yaml


class Part(Strict):
    weights: str = ""


class File(Strict):
    parts: dict[str, Part] = {}
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False)] = (0,)
    share: float = 1.0
    kind: Literal["grid", "random"] = "grid"
    values: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "f.yaml: the content is None, but must be keys with values"),
        ([1], "f.yaml: the content is [1], but must be keys with values"),
        ({"sheds": [1]}, "f.yaml: there is no key 'sheds'. Did you mean 'seeds'? Known: parts, seeds"),
        ({1: 2}, "f.yaml: there is no key 1. Known: parts"),
        (
            {"parts": {"x": {"weight": 1}}},
            "f.yaml: parts.x: there is no key 'weight'. Did you mean 'weights'?",
        ),
        ({"parts": {"x": {"weights": 1}}}, "f.yaml: parts.x.weights is 1, but must be a text"),
        ({"parts": {"x": None}}, "f.yaml: parts.x is None, but must be keys with values"),
        ({"seeds": ["0"]}, "f.yaml: seeds[0] is '0', but must be a whole number"),
        ({"seeds": [True]}, "f.yaml: seeds[0] is True, but must be a whole number"),
        ({"seeds": 5}, "f.yaml: seeds is 5, but must be a list"),
        ({"seeds": [-1]}, "f.yaml: seeds[0] is -1, but must be greater than or equal to 0"),
        ({"share": float("nan")}, "f.yaml: share is nan, but must be a finite number"),
        ({"kind": "gird"}, "f.yaml: kind is 'gird'; choose from grid or random"),
        ({"share": "x", "kind": 1}, "f.yaml: share is 'x', but must be a number; kind is 1; choose from"),
        ({"share": "x" * 1000}, "f.yaml: share is 'xxx"),
    ],
)
def test_a_mistake_is_told_with_its_place_in_one_line(content, message):
    with pytest.raises(ValueError) as told:
        parse(File, content, "f.yaml")
    assert str(told.value).startswith(message)
    assert "\n" not in str(told.value) and len(str(told.value)) < 200


def test_what_is_right_is_kept_as_it_is():
    file = parse(
        File, {"seeds": [1, 2], "share": 2, "parts": {"x": {"weights": "y"}}, "values": {"A": [1]}}, ""
    )
    assert file.seeds == (1, 2) and file.share == 2.0 and file.parts["x"].weights == "y"
    assert file.values == {"A": [1]} and file.kind == "grid"


@pytest.mark.parametrize("read", [read_yaml, read_json])
@pytest.mark.parametrize(
    "text", [b"{a: [", b"a: b: c", b"\xff\xfe\x00", b"!!int ''", b"[" * 100_000, b"!!timestamp x", b"%"]
)
def test_what_is_neither_yaml_nor_json_is_refused_in_one_line(tmp_path, read, text):
    (tmp_path / "f").write_bytes(text)
    with pytest.raises(ValueError, match="cannot be read as") as told:
        read(tmp_path / "f")
    assert str(tmp_path / "f") in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\n'a': 3\n", "line 3: the key 'a' stands in line 1 already"),
        ("x:\n  - {b: 1,\n     b: 1}\n", "line 3: the key 'b' stands in line 2 already"),
        ("1: x\n0x1: y\n", "line 2: the key 1 stands in line 1 already"),
        ("x: &x {a: 1}\ny: {<<: *x, b: 1, b: 2}\n", "line 2: the key 'b' stands in line 2 already"),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_its_lines(tmp_path, text, message):
    (tmp_path / "f").write_text(text)
    with pytest.raises(ValueError) as told:
        read_yaml(tmp_path / "f")
    assert str(told.value) == f"{tmp_path / 'f'}: cannot be read as yaml: {message}; keep one of them"


def test_a_key_may_override_what_is_merged(tmp_path):
    text = "x: &x {a: 1, b: 1}\ny: &y {<<: *x, a: 2}\nz: {a: 3, <<: *y, <<: {c: 4}, =: 5}\nw: [*y, *y]\n"
    (tmp_path / "f").write_text(text)
    x, y = {"a": 1, "b": 1}, {"a": 2, "b": 1}
    z = {"a": 3, "b": 1, "c": 4, "=": 5}
    assert read_yaml(tmp_path / "f") == {"x": x, "y": y, "z": z, "w": [y, y]}


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file '.*nowhere.yaml'"):
        read_yaml(tmp_path / "nowhere.yaml")
