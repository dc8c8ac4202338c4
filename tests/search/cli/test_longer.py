"""Which trials a resume with more epochs extends, and which configurations it proposes again."""

import pytest

from conftest import introduce, report
from digits_core.config.train_config import TrainConfig
from results.record.log import EventWriter
from search.cli.run_folder import make_longer
from search.policy.plan import Plan
from search.policy.proposals import Proposer
from spaces.registry import Space

EPOCHS = "optim.epochs"


class Kept:
    """A storage that still has every checkpoint."""

    def exists(self, path, *, ask):
        return True


def finished(events, name, epochs, **parameters):
    introduce(events, name, **{EPOCHS: epochs, **parameters})
    for epoch in range(1, epochs + 1):
        events.write("report", trial_id=name, **report(epoch, 0.5))
    events.write("checkpoint", trial_id=name, path=f"tune/{name}", epoch=epochs)
    events.write("end", trial_id=name, status="finished", reason=None)


@pytest.fixture
def events(tmp_path):
    writer = EventWriter(tmp_path, "r")
    writer.write("run", metric="val_map", epochs=4)
    yield writer
    writer.close()


def asked(events):
    return {name: trial.config[EPOCHS] for name, trial in events.record.trials.items()}


def next_setting(events, epochs):
    space = Space(name="s", summary="", suggest=lambda _: {})
    base = TrainConfig.from_flat({EPOCHS: epochs})
    return Proposer(Plan(space, base, 9, sampler="random")).next(events.record)


def test_trials_of_a_shorter_plan_train_on_and_are_not_proposed_again(events):
    finished(events, "t0000", 4)
    events.write("run", metric="val_map", epochs=6)
    assert next_setting(events, 6) is None
    assert make_longer(Kept(), events, 6) == []
    assert asked(events) == {"t0000": 6}
    assert next_setting(events, 6) is None


@pytest.mark.parametrize("planned", [4, 6])
def test_trials_whose_space_chose_their_epochs_keep_them(events, planned):
    for number, epochs in enumerate((2, 3, 8)):
        finished(events, f"t{number:04d}", epochs)
    events.write("run", metric="val_map", epochs=planned)
    assert make_longer(Kept(), events, planned) == []
    assert asked(events) == {"t0000": 2, "t0001": 3, "t0002": 8}
    assert next_setting(events, planned).config.optim.epochs == planned
