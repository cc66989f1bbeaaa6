"""The tutorial, as a reader runs it."""

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"


def test_the_tutorial_runs(tmp_path):
    """Half a minute on one core; an error in a cell is raised with the cell's text."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    kept = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}).execute()
    made = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    # It is kept with its outputs: where a cell shows something now, the file shows something too.
    shown = [[any(o.get("name") != "stderr" for o in outputs) for outputs in each] for each in (kept, made)]
    assert shown[0] == shown[1]


def test_the_kept_notebook_is_small_and_names_no_machine():
    text = NOTEBOOK.read_text()
    assert len(text) < 300_000
    assert '"stderr"' not in text and "/home/" not in text and "site-packages" not in text
