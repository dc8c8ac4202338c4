"""Runs docs/notebook.ipynb and stores its outputs without machine-specific parts: python docs/run_notebook.py."""

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).with_name("notebook.ipynb")


def run(notebook: Any, folder: Path) -> None:
    """Execute every cell in a folder; the first that fails ends it with nbclient's error."""
    root = str(NOTEBOOK.parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    NotebookClient(
        notebook, timeout=1200, coalesce_streams=True, resources={"metadata": {"path": str(folder)}}
    ).execute()


def clean(notebook: Any) -> None:
    """Drop times and warnings of the machine, and where its Python lies."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
        for one in cell.outputs:
            if one.output_type == "stream":
                one.text = re.sub(r"(?:/[\w.-]+)+/bin/(?=python|ray)", "", one.text)


if __name__ == "__main__":
    known = nbformat.read(NOTEBOOK, 4)
    with tempfile.TemporaryDirectory() as scratch:
        run(known, Path(scratch))
    clean(known)
    nbformat.write(known, NOTEBOOK)
    sys.stdout.write(f"ran {NOTEBOOK}\n")
