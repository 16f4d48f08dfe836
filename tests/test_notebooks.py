"""Notebooks and their text pairs."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


def test_every_notebook_has_its_pair():
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.py")) == NAMES
    assert NAMES == ["bring_your_own", "compare_reducers", "first_look", "what_the_clusters_see"]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_what_its_text_says(name):
    jupytext = pytest.importorskip("jupytext")
    notebook, text = (jupytext.read(NOTEBOOKS / f"{name}{suffix}") for suffix in (".ipynb", ".py"))
    cells = [[(cell.cell_type, cell.source) for cell in one.cells] for one in (notebook, text)]
    assert cells[0] == cells[1]
    assert cells[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_committed_without_results(name):
    content = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
