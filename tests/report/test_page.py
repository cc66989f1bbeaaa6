"""The HTML page in a real browser: its tables sort, its pictures enlarge, and it loads nothing."""

import re
import shutil
import subprocess

import pandas as pd
import pytest

from fakd.report.page import Heading, Picture, Table, to_html

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c49444154789c63606060000000040001f61738550000000049454e44ae426082"
)
TABLE = Table(pd.DataFrame({"run": ["cwd", "pd", "fakd", "at"], "gain": ["+2.50", "−3.00", "–", "+10.00 ▲"]}))


@pytest.fixture
def clicked(tmp_path):
    """The document of a page after a script has run in it."""
    if BROWSER is None:
        pytest.skip("no Chromium on the PATH (Debian, Ubuntu: apt-get install chromium)")
    page = to_html("A page", [TABLE, Picture("dot", PIXEL, "A dot"), Picture("other", PIXEL + b" ", "Other")])

    def run(script, *flags, shown=page):
        file = tmp_path / "page.html"
        file.write_text(shown.replace("</body>", f"<script>{script}</script></body>"))
        command = [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'user'}",
        ]
        offline = ["--host-resolver-rules=MAP * ~NOTFOUND"]
        done = subprocess.run(
            [*command, *offline, *flags, "--dump-dom", file.as_uri()], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def first_column(document):
    return re.findall(r'<tr><td class="">(\w+)</td>', document)


def test_a_click_on_a_heading_sorts_and_one_on_a_picture_enlarges_it(clicked):
    assert "<dialog><img" in clicked("")
    document = clicked(
        "document.querySelectorAll('th')[1].click(); document.querySelectorAll('figure img')[1].click();"
    )
    assert first_column(document) == ["at", "cwd", "pd", "fakd"]  # by number, what has none comes last
    assert '<th tabindex="0" aria-sort="descending">gain' in document
    shown = re.search(r'<dialog open="">\s*<img alt="[^"]*" src="([^"]+)"', document)
    widths = "const [shown, , opened] = document.querySelectorAll('figure img, dialog img');"
    document = clicked(
        f"{widths} shown.style.width = '400px'; shown.click(); document.title = opened.clientWidth;"
    )
    assert "<title>600</title>" in document  # also where the page shows a picture larger than its file
    assert shown and shown[1] == re.findall(r'<figure><img[^>]* src="([^"]+)"', document)[1]


def test_keys_do_what_clicks_do_and_a_second_one_turns_the_order(clicked):
    press = "new KeyboardEvent('keydown', {key: 'Enter'})"
    document = clicked(
        f"for (let i = 0; i < 2; i++) document.querySelectorAll('th')[1].dispatchEvent({press});"
        f"document.querySelector('figure img').dispatchEvent({press});"
        "document.querySelector('dialog').click();"
    )
    assert first_column(document) == ["pd", "cwd", "at", "fakd"]
    assert "<dialog><img" in document  # opened, and closed by the click


def test_a_long_page_has_contents_whose_links_lead_to_their_headings(clicked):
    names = ["Gains", "Classes", "Pictures", "Cost", "Pairs"]
    short, long = (to_html("A page", [Heading(name) for name in names[:n]]) for n in (4, 5))
    script = (
        "document.title = [...document.querySelectorAll('nav a')].map("
        "link => link.textContent + ' ' + document.querySelector(link.hash).textContent).join();"
    )
    assert "<title>" + ",".join(f"{name} {name}" for name in names) + "</title>" in clicked(
        script, shown=long
    )
    assert "<nav>" not in clicked("", shown=short)


def test_dark_mode_inverts_plots_and_leaves_photographs_their_colours(clicked):
    page = to_html("A page", [Picture("a", PIXEL, "A plot"), Picture("b", PIXEL, "A photo", is_photo=True)])
    script = (
        "document.title = [...document.querySelectorAll('figure img')].map("
        "image => getComputedStyle(image).filter.includes('invert')).join();"
    )
    assert "<title>true,false</title>" in clicked(
        script, "--blink-settings=preferredColorScheme=0", shown=page
    )
    assert "<title>false,false</title>" in clicked(script, shown=page)
