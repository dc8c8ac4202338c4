"""What a retraining shows on a terminal."""

import io

from digits_core.terminal import PlainConsole
from search.models.trainer import Shown
from search.monitor.epoch_progress import PROGRESS_FILE, Reached, write_progress


def shown(state, reached):
    """What the terminal gets while the first epoch of twelve is so far."""
    out = io.StringIO()
    with Shown(PlainConsole(file=out, width=80, force_terminal=True), state, 12):
        if reached is not None:
            write_progress(state, {state.name: reached})
    return out.getvalue()


def test_the_part_of_the_first_epoch_is_shown(tmp_path):
    state = tmp_path / "t0003-r1"
    state.mkdir()
    assert "starting" in shown(state, None)
    text = shown(state, Reached(0, 1, 0.43))
    assert "t0003-r1: epoch 1/12, 43 %" in text
    assert not (state / PROGRESS_FILE).exists()
    assert "t0003-r1: epoch 1/12, evaluation" in shown(state, Reached(0, 1, 1.0))
    assert "%" not in shown(state, Reached(0, 4, 0.43))  # of another training
