"""A page of headings, text, tables and pictures, written as Markdown or as one self-contained HTML file."""

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Protocol

import pandas as pd

from fakd.files import atomic_write

_TEMPLATE = Path(__file__).with_name("page.html")


class LeftOut(Exception):
    """A section cannot be made; the message says why."""


class Block(Protocol):
    """Part of a page. Text in it may hold ``**bold**`` and ``code`` marks and nothing else of Markdown."""

    def markdown(self) -> str:
        """The block as Markdown."""

    def html(self) -> str:
        """The block as HTML."""


@dataclass(frozen=True)
class Heading(Block):
    """Heading of a section; ``level`` 3 for one within a part of the page."""

    text: str
    level: int = 2

    def markdown(self) -> str:
        return f"{'#' * self.level} {self.text}"

    def html(self) -> str:
        return f"<h{self.level}>{_inline(self.text)}</h{self.level}>"


@dataclass(frozen=True)
class Text(Block):
    """A paragraph; ``kind`` is a class of the style sheet: "", "lead", "note" or "warning"."""

    text: str
    kind: str = ""

    def markdown(self) -> str:
        return f"> {self.text}" if self.kind == "warning" else self.text

    def html(self) -> str:
        return f'<p class="{self.kind}">{_inline(self.text)}</p>'


@dataclass(frozen=True)
class Bullets(Block):
    """A list, each item a text."""

    items: Sequence[str]

    def markdown(self) -> str:
        return "\n".join(f"- {item}" for item in self.items)

    def html(self) -> str:
        return f"<ul>{''.join(f'<li>{_inline(item)}</li>' for item in self.items)}</ul>"


@dataclass(frozen=True)
class Code(Block):
    """Lines to be copied as they are."""

    text: str

    def markdown(self) -> str:
        return f"```\n{self.text}\n```"

    def html(self) -> str:
        return f"<pre>{html.escape(self.text)}</pre>"


@dataclass(frozen=True)
class Table(Block):
    """A table of texts; a click on a heading sorts the HTML form by it."""

    cells: pd.DataFrame

    def markdown(self) -> str:
        escaped = self.cells.map(lambda cell: str(cell).replace("|", "\\|"))
        align = ["left"] + ["right"] * (escaped.shape[1] - 1)
        return escaped.to_markdown(index=False, disable_numparse=True, colalign=align)

    def html(self) -> str:
        head = "".join(f"<th tabindex=0>{html.escape(str(name))}</th>" for name in self.cells)
        rows = "".join(
            f"<tr>{''.join(map(_cell, row))}</tr>" for row in self.cells.itertuples(index=False, name=None)
        )
        return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


@dataclass(frozen=True)
class Picture(Block):
    """A picture; Markdown links to ``pictures/<name>.png``, which the caller writes.

    ``is_photo`` keeps its colours where a plot is inverted, in dark mode.
    """

    name: str
    png: bytes
    caption: str
    is_photo: bool = False

    def markdown(self) -> str:
        return f"![{self.caption}](pictures/{self.name}.png)\n\n*{self.caption}*"

    def html(self) -> str:
        data = base64.b64encode(self.png).decode()
        caption = html.escape(self.caption)
        return (
            f'<figure><img tabindex=0 class="{"photo" if self.is_photo else "plot"}" alt="{caption}" '
            f'src="data:image/png;base64,{data}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )


def to_markdown(title: str, blocks: Sequence[Block]) -> str:
    """The page as Markdown, its pictures in files beside it."""
    return "\n\n".join([f"# {title}", *(block.markdown() for block in blocks)]) + "\n"


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """The page as one HTML file that needs no other."""
    body = "\n".join([_contents(blocks), *(block.html() for block in blocks)])
    return Template(_TEMPLATE.read_text("utf-8")).substitute(title=html.escape(title), body=body)


def save_page(folder: Path, name: str, title: str, blocks: Sequence[Block]) -> Path:
    """Writes ``<name>.md``, ``pictures/`` and ``<name>.html``, which needs no other file and is returned."""
    files = {f"pictures/{block.name}.png": block.png for block in blocks if isinstance(block, Picture)}
    files |= {
        f"{name}.md": to_markdown(title, blocks).encode(),
        f"{name}.html": to_html(title, blocks).encode(),
    }
    for file, content in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / file) as stream:
            stream.write(content)
    return folder / f"{name}.html"


def _contents(blocks: Sequence[Block]) -> str:
    """Links to the headings of a long page, which the page's script gives their targets."""
    headings = [block for block in blocks if isinstance(block, Heading)]
    links = "".join(
        f'<a class="l{h.level}" href="#h{i}">{_inline(h.text)}</a>' for i, h in enumerate(headings)
    )
    return f"<nav>{links}</nav>" if len(headings) > 4 else ""


def _inline(text: str) -> str:
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html.escape(text))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", text)


def _cell(text: object) -> str:
    mark = "up" if "▲" in str(text) else "down" if "▼" in str(text) else ""
    return f'<td class="{mark}">{_inline(str(text))}</td>'
