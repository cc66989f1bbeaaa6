"""Who may import whom: downwards only, and detectron2, timm and ray not below their level."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fakd"

LEVELS = {
    "structures": 0,
    "registry": 0,
    "files": 0,
    "errors": 0,
    "ranges": 0,
    "functional": 1,
    "layers": 1,
    "statistics": 1,
    "schedules": 1,
    "losses": 2,
    "checkpoint": 3,
    "config": 3,
    "data": 3,
    "evaluation": 3,
    "modeling": 3,
    "validation": 3,
    "view_cache": 3,
    "engine": 4,
    "sweep": 5,
    "report": 5,
    "deploy": 5,
    "predict": 5,
    "commands": 6,
    # Those that stand beside the levels: the package itself, and what must run with nothing installed.
    "__init__": 6,
    "__main__": 6,
    "doctor": 6,
    "install_detectron2": 6,
}
# The lowest level that may import a library; what is not here is free to all.
LIBRARIES = {
    "detectron2": 3,
    "timm": 3,
    "PIL": 3,
    "numpy": 3,
    "yaml": 3,
    "cv2": 3,
    "tqdm": 3,
    "pydantic": 3,
    "pandas": 5,
    "ray": 5,
}
# Below level 3 a loss works and tests with plain torch.
PLAIN = {"torch", "fvcore"}
APART = ("modeling", "data")


def imports(source, part):
    """Every module an `import` anywhere in the source names, absolute, with `fakd.x` for relative ones.

    Args:
        source: Python text.
        part: dotted name of the package the file is in, to resolve relative imports.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = part.split(".")[: len(part.split(".")) - node.level + 1]
            above += [node.module] if node.module else []
            yield from (".".join([*above, alias.name]) for alias in node.names)


def wrong_imports(source, part, home):
    """What a file of ``home``, a name in ``LEVELS``, imports and may not."""
    level = LEVELS[home]
    for name in imports(source, part):
        top, *rest = name.split(".")
        if top in ("tools", "projects", "tests", "benchmarks"):
            yield name
        elif top == "fakd" and rest:
            target = rest[0] if rest[0] in LEVELS else "__init__"
            if LEVELS[target] > level and target != home:
                yield name
            elif {target, home} == set(APART):
                yield name
        elif LIBRARIES.get(top, 0) > level:
            yield name


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_downwards(file):
    relative = file.relative_to(PACKAGE)
    home = relative.parts[0].removesuffix(".py")
    assert home in LEVELS, f"give fakd.{home} a level"
    part = ".".join(["fakd", *relative.parts[:-1]])
    assert list(wrong_imports(file.read_text(), part, home)) == []


@pytest.mark.parametrize("name", [name for name, level in LEVELS.items() if level < 3])
def test_losses_and_below_need_torch_and_fvcore_alone(name):
    for file in FILES:
        relative = file.relative_to(PACKAGE)
        if relative.parts[0].removesuffix(".py") == name:
            part = ".".join(["fakd", *relative.parts[:-1]])
            tops = {module.split(".")[0] for module in imports(file.read_text(), part)}
            assert tops <= PLAIN | {"fakd"} | set(sys.stdlib_module_names), relative


@pytest.mark.parametrize("name", [name for name, level in LEVELS.items() if level < 3])
def test_losses_and_below_read_no_config_node(name):
    """A loss is given a dataclass. ``cfg`` is what config nodes are called everywhere here."""
    for file in FILES:
        if file.relative_to(PACKAGE).parts[0].removesuffix(".py") == name:
            names = {node.id for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Name)}
            assert not names & {"cfg", "CfgNode", "get_cfg"}, file


# Circles -----------------------------------------------------------------------------------------------


def module_name(file):
    parts = ["fakd", *file.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_graph(sources):
    """The modules of ``sources`` that each of them imports, wherever in its text.

    Args:
        sources: {dotted name: (text, dotted name of the package it is in)}.
    """

    def module(name):
        """The longest beginning of a dotted name that is a module."""
        while name and name not in sources:
            name = name.rpartition(".")[0]
        return name

    return {
        name: {module(found) for found in imports(text, part)} - {"", name}
        for name, (text, part) in sources.items()
    }


def circles(graph):
    """Sets of nodes that reach each other."""

    def reached(start):
        seen, waiting = set(), [start]
        while waiting:
            for node in graph[waiting.pop()] - seen:
                seen.add(node)
                waiting.append(node)
        return seen

    reach = {node: reached(node) for node in graph}
    found = {frozenset(b for b in reach[a] if a in reach[b]) for a in graph if a in reach[a]}
    return sorted(map(set, found), key=sorted)


def library():
    parts = {file: ".".join(["fakd", *file.relative_to(PACKAGE).parts[:-1]]) for file in FILES}
    return {module_name(file): (file.read_text(), parts[file]) for file in FILES}


def test_no_circle_between_files():
    assert circles(import_graph(library())) == []


def test_no_circle_between_packages():
    graph = {}
    for name, targets in import_graph(library()).items():
        home, *_ = [*name.split(".")[1:], "fakd"]
        others = {[*target.split(".")[1:], "fakd"][0] for target in targets} - {home}
        graph[home] = graph.get(home, set()) | others
    assert circles(graph) == []


def test_no_module_imports_the_whole_package():
    """``import fakd`` reads as a dependency on everything; a module's own place is ``Path(__file__)``."""
    bare = [name for name, (text, part) in library().items() if "fakd" in imports(text, part)]
    assert bare == []


def test_a_circle_is_found():
    sources = {
        "fakd.a": ("from .b import x", "fakd"),
        "fakd.b": ("def f():\n    from fakd import c", "fakd"),
        "fakd.c": ("import fakd.a\nfrom fakd import d", "fakd"),
        "fakd.d": ("import torch", "fakd"),
        "fakd.e": ("from . import a", "fakd"),
    }
    assert circles(import_graph(sources)) == [{"fakd.a", "fakd.b", "fakd.c"}]


def test_the_rule_finds_what_breaks_it():
    cases = {
        ("from detectron2.config import CfgNode", "fakd.losses", "losses"): ["detectron2.config.CfgNode"],
        ("import timm", "fakd.functional", "functional"): ["timm"],
        ("from ..modeling import Segmentor", "fakd.losses", "losses"): ["fakd.modeling.Segmentor"],
        ("from ..losses.base import option", "fakd.statistics", "statistics"): ["fakd.losses.base.option"],
        ("from ...data import mapper", "fakd.modeling.backbones", "modeling"): ["fakd.data.mapper"],
        ("from ..modeling import Segmentor", "fakd.data", "data"): ["fakd.modeling.Segmentor"],
        ("def f():\n    import ray", "fakd.engine", "engine"): ["ray"],
        ("from tools import train_net", "fakd.report", "report"): ["tools.train_net"],
        ("from . import losses", "fakd", "structures"): ["fakd.losses"],
        ("from ..functional.resize import resize_like\nimport torch", "fakd.losses", "losses"): [],
        ("from ..engine import run", "fakd.sweep", "sweep"): [],
    }
    for (source, part, home), found in cases.items():
        assert list(wrong_imports(source, part, home)) == found
