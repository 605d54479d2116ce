"""The notebooks of docs/ say what a fresh kernel says."""

from __future__ import annotations

import pytest

for _needed in ("nbclient", "nbformat", "ipykernel"):
    pytest.importorskip(_needed)

from docs.tools.run_notebooks import NOTEBOOKS, code_cells, executed, texts  # noqa: E402

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_notebook(path):
    """Else: python docs/tools/run_notebooks.py. Pictures are drawn, but not compared."""
    import nbformat

    stored = nbformat.read(path, as_version=4)
    assert path.stat().st_size < 200_000
    assert sum(bool(cell.outputs) for cell in code_cells(stored)) >= 5
    assert texts(executed(path)) == texts(stored)


def test_there_is_a_notebook():
    assert PATHS
