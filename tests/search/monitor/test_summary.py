"""What is printed at the end of a search."""

import io

import pytest
from rich.console import Console

from results.views.winner import Advice
from search.cli.settings import SearchSettings, make_plan
from search.monitor.summary import next_commands, print_end
from searched import Searched


@pytest.fixture
def settings(tmp_path):
    return SearchSettings(space="lr_schedules", out=str(tmp_path), name="r", trials=4, epochs=2)


def verbs(commands):
    names = ("resume", "board", "compare", "report", "retrain", "export", "run")
    return [next(name for name in names if f" {name} " in command) for command in commands]


def test_the_recommended_command_is_the_first_and_complete(settings, tmp_path):
    advice = Advice("Use the model of t0001.", flags="--replicates 3 --replicate-top 4")
    first, *others = next_commands(settings, make_plan(settings), tmp_path / "r", advice)
    assert first.endswith(f" resume r --out {tmp_path} --replicates 3 --replicate-top 4")
    assert verbs(others) == ["board", "compare", "report", "retrain", "export", "run"]


def test_nothing_is_proposed_with_a_winner_that_should_not_replace_the_default(settings, tmp_path):
    commands = next_commands(settings, make_plan(settings), tmp_path / "r", Advice("Keep it.", keeps_default=True))
    assert verbs(commands) == ["board", "compare", "report", "export"]


@pytest.mark.parametrize("ending", ["interrupted", None])
def test_after_an_interruption_the_resume_comes_first_and_nobody_has_won(settings, tmp_path, ending):
    made = Searched(tmp_path / "r", epochs=2)
    made.trial("t0000", 0.8, baseline="default")
    made.trial("t0001", 0.9, **{"optim.lr": 0.002})
    made.done()
    text = io.StringIO()
    console = Console(file=text, width=200)
    printed = print_end(settings, make_plan(settings), made.folder, made.events.record, ending, console)
    out = text.getvalue()
    cut = ending == "interrupted"
    assert out.startswith("interrupted; resume with\n") == cut
    assert ("best so far: t0001" in out, "winner: t0001" in out) == (cut, not cut)
    assert (printed.verdict is None) == cut
    [following] = [line for line in out.splitlines() if line.startswith("next  ")]
    assert " resume r " in following
