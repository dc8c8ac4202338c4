"""--init-from and --from: which trained model they use."""

import pytest

from conftest import introduce, report
from digits_core.errors import RunError, UsageError
from digits_core.model.build import DRAWN_WEIGHTS
from results.record.log import EventWriter
from search import run
from search.cli.settings import SearchSettings, make_plan
from search.models.source import find_source, initial_weights
from spaces.registry import probe


@pytest.fixture
def searched(tmp_path):
    """A run whose best trial kept its checkpoint."""
    import shutil

    folder = tmp_path / "runs" / "done"
    folder.mkdir(parents=True)
    events = EventWriter(folder, "done")
    events.write("run", metric="val_map", trials=2, resumed=False)
    for number, value in enumerate((0.3, 0.4)):
        introduce(events, f"t{number:04d}", **{"optim.lr": 1e-3 * (number + 1)})
        events.write("report", trial_id=f"t{number:04d}", **report(1, value))
        events.write("end", trial_id=f"t{number:04d}", status="finished", reason=None)
    shutil.copytree(DRAWN_WEIGHTS, folder / "checkpoints" / "t0001")
    events.write("kept", trial_id="t0001", path="checkpoints/t0001")
    events.close()
    (folder / "run.json").write_text('{"settings": {"data": {}}}')
    return folder


def test_a_run_a_trial_and_a_checkpoint_name_one_folder(searched):
    for source in (str(searched), "done", "done:t0001", str(searched / "checkpoints" / "t0001")):
        assert find_source(source, "--from", searched.parent).folder.resolve() == searched / "checkpoints" / "t0001"


def test_every_training_starts_from_the_weights(searched, tiny_folder, tmp_path, capsys):
    weights = initial_weights("done", str(searched.parent), {})
    assert weights == str(searched / "checkpoints" / "t0001")
    for space in ("lr_schedules", "reports"):  # the latter names weights itself
        plan = make_plan(SearchSettings(space=space, init_from=weights))
        assert plan.base.model.weights == weights
        assert all("model.weights" not in one.overrides for one in plan.space.baselines)
        assert all("model.weights" not in overrides for _, overrides in probe(plan.space))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("done:t0000", r"--init-from done:t0000: the checkpoint of t0000 was not kept"),
        ("done:t0009", "run 'done' has no trial 't0009'"),
        ("nowhere", "--init-from nowhere: there is no such run"),
    ],
)
def test_models_that_are_not_there_are_named(searched, source, said):
    with pytest.raises(RunError, match=said):
        initial_weights(source, str(searched.parent), {})


def test_weights_are_named_in_one_place(searched):
    with pytest.raises(UsageError, match=r"--set model\.weights also sets the weights"):
        initial_weights("done", str(searched.parent), {"model.weights": "none"})


def test_weights_that_fit_nothing_are_refused_before_anything_runs(searched, tiny_folder, tmp_path, capsys):
    arguments = ["--space", "lr_schedules", "--init-from", str(searched), "--set", "model.backbone=resnet18"]
    assert run.main([*arguments, "--data", str(tiny_folder), "--out", str(tmp_path / "new")]) == 2
    assert "fit model.backbone=resnet18; it was trained with --set model.backbone=tiny" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
