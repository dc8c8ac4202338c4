import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from search.command import GROUPS, SHELLS, VERBS, build_parser, main

ROOT = Path(__file__).parents[2]


def answer(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    said = capsys.readouterr()
    return caught.value.code, said.out + said.err


def test_help_fits_one_screen_and_names_every_command():
    text = build_parser().format_help()
    assert len(text.splitlines()) <= 45
    assert max(map(len, text.splitlines())) <= 100
    for title, group in GROUPS.items():
        assert f"{title}:" in text
        for name, verb in group.items():
            assert f"  {name:10} {verb.summary}\n" in text


def test_without_a_command_help_is_printed(capsys):
    assert main([]) == 0
    assert "usage: digit-search COMMAND" in capsys.readouterr().out


def test_a_search_keeps_its_command_as_it_was_typed(monkeypatch):
    from search import driver
    from search.run import main as run_main

    kept = []
    monkeypatch.setattr(driver, "run_search", lambda settings, *, command, **others: kept.append(command) or 0)
    words = ["--space", "anchors", "--name", "mine"]
    assert run_main(words) == 0
    assert main(["run", *words]) == 0
    assert kept == [["python", "-m", "search.run", *words], ["digit-search", "run", *words]]


@pytest.mark.parametrize("name", VERBS)
def test_every_command_answers_by_its_name(name, capsys):
    assert callable(import_module(VERBS[name].module).build_parser)
    code, said = answer(capsys, name, "--flag-that-is-not-there")
    assert code == 2
    assert said.startswith(f"digit-search {name}")


def test_a_mistake_names_the_command_that_was_typed(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["board"]) == 2
    assert capsys.readouterr().err.startswith("digit-search board: no run is named, and runs/ has none")


def test_mistyped_commands_and_flags_are_suggested(capsys):
    assert answer(capsys, "bord") == (
        2,
        "digit-search: there is no command 'bord'; did you mean 'board'?; --help lists all commands\n",
    )
    code, said = answer(capsys, "run", "--trails", "4")
    assert code == 2
    assert "--trails 4; did you mean '--trials'" in said
    code, said = answer(capsys, "run", "--space", "anchors", "--trial", "3", "--epoc", "2")
    assert "did you mean '--trials' or '--epochs'?; --help lists all flags" in said
    code, said = answer(capsys, "evaluate", "--data", "fresh")
    assert (
        "unrecognized arguments: --data; name the images and their annotations with --images and --annotations" in said
    )


def test_resume_and_status_stand_for_flags(capsys, tmp_path):
    assert main(["status", "none", "--out", str(tmp_path)]) == 2
    assert "none: there is no such run" in capsys.readouterr().err
    assert main(["resume", "none", "--out", str(tmp_path)]) == 2
    assert "--resume none: there is no run" in capsys.readouterr().err


def test_a_changed_parameter_of_a_resumed_run_needs_a_new_run(capsys):
    assert main(["resume", "none", "--set", "optim.lr=1"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("digit-search resume: --set: a resumed run keeps its settings; start a new run with ")
    assert "--resume" not in said


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_commands_and_flags(shell, capsys):
    pytest.importorskip("shtab")
    assert main(["--print-completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("board", "compare", "--replicates", "--confirm"):
        assert word in script


def test_the_installed_command_is_the_module():
    command = [sys.executable, "-m", "search.command", "board", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ, check=True)
    assert done.stdout.startswith("digit-search ")
    assert '[project.scripts]\ndigit-search = "search.command:main"' in (ROOT / "pyproject.toml").read_text()
