"""Typesets formulas as MathML, which a browser shows without a script or a network."""

import html as markup
import re

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(html: str, **_) -> str:
    """Replaces what pymdownx.arithmatex has marked."""
    return FORMULA.sub(_typeset, html)


def _typeset(found: re.Match) -> str:
    how = "block" if found[1] == "div" else "inline"
    return convert(" ".join(markup.unescape(found[2]).split()), display=how)
