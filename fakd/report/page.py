"""A page of headings, text, tables and pictures, written as Markdown or as one self-contained HTML file."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape

from fakd.files import atomic_write


class LeftOut(Exception):
    """A section cannot be made; the message says why."""


class Block:
    """Part of a page. Text in it may hold ``**bold**`` and ``code`` marks and nothing else of Markdown."""

    @property
    def type(self) -> str:
        """What the templates know the block by."""
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Heading(Block):
    """Heading of a section; ``level`` 3 for one within a part of the page."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text(Block):
    """A paragraph; ``style`` is a class of the style sheet: "", "lead", "note" or "warning"."""

    text: str
    style: str = ""


@dataclass(frozen=True)
class Bullets(Block):
    """A list, each item a text."""

    items: Sequence[str]


@dataclass(frozen=True)
class Code(Block):
    """Lines to be copied as they are."""

    text: str


@dataclass(frozen=True)
class Table(Block):
    """A table of texts; a click on a heading sorts the HTML form by it."""

    cells: pd.DataFrame

    @property
    def markdown(self) -> str:
        """The table with "|" between its columns."""
        escaped = self.cells.map(lambda cell: str(cell).replace("|", "\\|"))
        align = ["left"] + ["right"] * (escaped.shape[1] - 1)
        return escaped.to_markdown(index=False, disable_numparse=True, colalign=align)


@dataclass(frozen=True)
class Picture(Block):
    """A picture; Markdown links to ``pictures/<name>.png``.

    ``is_photo`` keeps its colours where a plot is inverted, in dark mode.
    """

    name: str
    png: bytes
    caption: str
    is_photo: bool = False

    @property
    def base64(self) -> str:
        """The content for a data URI."""
        return base64.b64encode(self.png).decode()


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """The page as one HTML file that needs no other."""
    return _render("page.html.j2", title, blocks)


def save_page(folder: Path, name: str, title: str, blocks: Sequence[Block]) -> Path:
    """Writes ``<name>.md``, ``pictures/`` and ``<name>.html``, which needs no other file and is returned."""
    files = {f"pictures/{block.name}.png": block.png for block in blocks if isinstance(block, Picture)}
    files[f"{name}.md"] = _render("page.md.j2", title, blocks).encode()
    files[f"{name}.html"] = to_html(title, blocks).encode()
    for file, content in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / file) as stream:
            stream.write(content)
    return folder / f"{name}.html"


def _render(template: str, title: str, blocks: Sequence[Block]) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=template.startswith("page.html"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["marked"] = _marked
    return environment.get_template(template).render(title=title, blocks=blocks, string=str)


def _marked(text: str) -> Markup:
    bold = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(text)))
    return Markup(re.sub(r"`(.+?)`", r"<code>\1</code>", bold))
