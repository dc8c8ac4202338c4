"""The notebook of the documentation, run from its first cell to its last."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.tools, pytest.mark.timeout(1800)]


@pytest.fixture
def run_notebook(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import run_notebook

    yield run_notebook
    sys.modules.pop("run_notebook")


def test_the_notebook_runs_and_shows_what_it_showed(run_notebook, tmp_path):
    import nbformat

    kept = nbformat.read(run_notebook.NOTEBOOK, 4)
    fresh = nbformat.read(run_notebook.NOTEBOOK, 4)
    run_notebook.run(fresh, tmp_path)
    run_notebook.clean(fresh)
    for before, now in zip(kept.cells, fresh.cells, strict=True):
        if before.cell_type == "code":
            assert [one.output_type for one in now.outputs] == [one.output_type for one in before.outputs]
            assert [sorted(one.get("data", {})) for one in now.outputs] == [
                sorted(one.get("data", {})) for one in before.outputs
            ]
    assert (tmp_path / "runs" / "notebook" / "report.html").is_file()
    text = nbformat.writes(kept)
    assert "/bin/python" not in text
    assert str(ROOT) not in text


def test_run_search_says_what_is_wrong_as_the_command_does(tmp_path, capfd):
    from search import run_search
    from search.notebook import SearchError

    with pytest.raises(SearchError, match=r"unknown space 'ancors'.*did you mean"):
        run_search("ancors", out=tmp_path)
    with pytest.raises(SearchError, match=r"run_search: there is no flag trails"):
        run_search("anchors", out=tmp_path, trails=3)
    assert list(tmp_path.iterdir()) == []
