"""Execute the notebooks of docs/ in place: ``python docs/tools/run_notebooks.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
TIMEOUT_S = 300


def executed(path: Path) -> Any:
    """Return the notebook as a fresh kernel fills it, without standard error; raises where a cell does."""
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": NOTEBOOKS}}
    client = NotebookClient(notebook, timeout=TIMEOUT_S, kernel_name="python3", resources=place, record_timing=False)
    client.execute()
    for cell in code_cells(notebook):
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata["language_info"] = {"name": "python"}  # without the version, which differs from place to place
    return notebook


def code_cells(notebook: Any) -> list[Any]:
    """Return the cells that hold code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(notebook: Any) -> list[str]:
    """Return what each code cell prints or shows, as plain text; pictures say their size alone."""
    return ["".join(_text(output) for output in cell.outputs) for cell in code_cells(notebook)]


def _text(output: Any) -> str:
    return str(output["text"] if output.output_type == "stream" else output.data["text/plain"])


def main() -> None:
    """Execute every notebook and write it back."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        nbformat.write(executed(path), path)
        print(f"written: {path.name}")


if __name__ == "__main__":
    main()
