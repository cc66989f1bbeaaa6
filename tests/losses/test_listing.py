"""The list of losses is that of the code."""

import html
import re
import runpy
from dataclasses import fields
from pathlib import Path

import pytest

import fakd
from fakd.losses.__main__ import library_losses, loss_section, main, markdown, measure
from fakd.registry import DISTILL_LOSS_REGISTRY

ROOT = Path(fakd.__file__).parents[1]


def test_the_page_is_that_of_the_code():
    page = (ROOT / "docs" / "losses.md").read_text(encoding="utf-8")
    assert page == markdown(library_losses().values()), "run `python -m fakd.losses --markdown` and commit"


def test_every_file_of_a_method_is_listed():
    files = {file.stem for file in (ROOT / "fakd" / "losses").glob("[a-z]*.py")} - {"base"}
    assert {loss.__module__.rsplit(".")[-1] for loss in library_losses().values()} == files


@pytest.mark.parametrize(
    "name, uses",
    [
        ("PD", {"the student's logits", "the teacher's logits"}),
        ("DKD", {"the student's logits", "the teacher's logits", "the labels", "the void mask"}),
        ("CIRKDBatch", {"the student's feature", "the teacher's feature"}),
    ],
)
def test_what_a_loss_uses(name, uses):
    said = measure(DISTILL_LOSS_REGISTRY.get(name))[0]
    assert set(said.replace(" and ", ", ").split(", ")) == uses


def test_what_a_loss_costs():
    # Two 3x3 convolutions of 512 channels and their biases, and the adapter from 128.
    weights = 2 * (9 * 512 + 1) * 512 + 128 * 512
    assert f"{weights / 1e6:.3g} M trained weights" in measure(DISTILL_LOSS_REGISTRY.get("MGD"))[1]
    assert measure(DISTILL_LOSS_REGISTRY.get("PD"))[1] == "0 GFLOP"


def test_options_and_formula_are_shown(capsys):
    main(["DIST", "CWD"])
    text = capsys.readouterr().out
    for name in ("DIST", "CWD"):
        loss = DISTILL_LOSS_REGISTRY.get(name)
        assert loss_section(loss) in text and loss.paper in text
        assert all(f.metadata["help"] in text for f in fields(loss.Config))
    assert "`GAMMA` | `1.0`" in text and r"\rho(p_{i:}, q_{i:})" in text


def test_every_loss_has_a_formula_that_the_site_can_typeset():
    pytest.importorskip("latex2mathml", reason="needs latex2mathml: pip install 'fakd[docs]'")
    typeset = runpy.run_path(str(ROOT / "docs" / "site" / "formulas.py"))["on_page_content"]
    for name, loss in library_losses().items():
        formulas = re.findall(r"\$\$\n(.*?)\n\$\$", loss_section(loss), re.DOTALL)
        assert formulas, name
        for formula in formulas:
            marked = html.escape(formula, quote=False)  # as pymdownx.arithmatex marks it
            page = typeset(html=f'<p>a</p><div class="arithmatex">\\[\n{marked}\n\\]</div>')
            assert page.startswith("<p>a</p><math") and 'display="block"' in page
            assert "\\" not in page, f"{name}: a command that is not known: {page}"
            # GitHub's Markdown reads these before its formulas.
            assert not re.search(r"\\[,;{}_!]|^[-+=#>*] ", formula, re.MULTILINE), name


def test_an_unknown_name_is_refused():
    with pytest.raises(KeyError, match="CWDD"):
        main(["CWDD"])
