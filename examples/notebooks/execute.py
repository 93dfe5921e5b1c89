"""Run the notebooks of this folder anew and keep their outputs.

    pip install '.[train,vision,study,export]' nbclient ipykernel
    python examples/notebooks/execute.py [NOTEBOOK ...]

Each takes less than a minute on one core. What changes from run to run (times, counters) is left
out, so that a notebook whose outputs are the same is the same file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def executed(path: Path, *, timeout: float = 300.0) -> nbformat.NotebookNode:
    """Return a notebook with fresh outputs; the file stays as it is.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell does.
    """
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=timeout, kernel_name="python3").execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_name(output)]
    return notebook


def _is_name(output: nbformat.NotebookNode) -> bool:
    """Whether an output is the empty text that stands for a figure which is drawn already."""
    return output.output_type == "execute_result" and set(output.data) == {"text/plain"}


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]) if sys.argv[1:] else sorted(FOLDER.glob("*.ipynb")):
        nbformat.write(executed(path), path)
        sys.stdout.write(f"{path.name}\n")
