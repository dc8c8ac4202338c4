import pytest

from results import compare, leaderboard
from searched import Searched, annotations, strict_json

LR = "optim.lr"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The default and two settings, replicated; one that did nothing; a confirmation."""
    one = Searched(tmp_path_factory.mktemp("runs") / "demo")
    one.trial("t0000", 0.6, baseline="default")
    one.trial("t0001", 0.95, **{LR: 2e-3, "optim.schedule": "step"})
    one.trial("t0002", 0.6, **{"optim.momentum": 0.5})
    step = {LR: 2e-3, "optim.schedule": "step"}
    names = (f"t{number:04d}" for number in range(3, 99))
    for seed in (1, 2, 3):
        one.trial(next(names), 0.6, seed=seed, role="replicate")
        one.trial(next(names), 0.95, seed=seed, role="replicate", **step)
        one.trial(next(names), 0.6, seed=seed + 9, role="confirm", confirm=0.5)
        one.trial(next(names), 0.95, seed=seed + 9, role="confirm", confirm=0.9, **step)
    for name in ("t0000", "t0002"):
        one.events.write("report", trial_id=name, epoch=3, weights="same")
    return one.done()


def printed(arguments, capsys):
    assert compare.main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def test_the_whole_board_is_compared_with_its_best(run, capsys):
    out = printed([run], capsys)
    assert "val_map on 60 validation images; standard deviation over seeds 0.0" in out
    assert "t0001 against t0000  t0001 is better: +0." in out


def test_the_confirmation_and_parameters_that_did_nothing_are_told(run, capsys):
    out = printed([run], capsys)
    assert "t0001 against the default: +0." in out
    assert " with 3 replicates on the confirmation images: " in out
    assert "confirmed, it is better" in out
    assert "warning: t0002 trained to the same weights as t0000: optim.momentum had no effect here" in out
    assert leaderboard.main([str(run)]) == 0
    board = capsys.readouterr().out
    assert "warning: t0002 trained to the same weights as t0000" in board
    assert "confirmed, it is better" in board


def test_a_run_is_named_by_the_path_that_was_given(run, monkeypatch, capsys):
    monkeypatch.chdir(run.parent)
    assert printed(["demo", "demo", run], capsys).startswith("demo: val_map on 60 ")


def test_configurations_with_only_one_training_are_named_if_others_have_replicates(run, tmp_path, capsys):
    few = "Only one training per configuration so far: this compares models."
    assert "t0002" in [one["second"] for one in strict_json(printed([run, "--json"], capsys))["verdicts"]]
    assert "t0002 has only one training" not in printed([run, "--trials", "t0000,t0001"], capsys)
    one = Searched(tmp_path / "one")
    for number, quality in enumerate((0.6, 0.95, 0.3, 0.2)):
        one.trial(f"t000{number}", quality, **{LR: 1e-3 * (number + 1)})
    assert few in printed([one.folder], capsys)
    for seed in (1, 2):
        for number, quality in enumerate((0.6, 0.95)):
            one.trial(f"t00{seed}{number}", quality, seed=seed, role="replicate", **{LR: 1e-3 * (number + 1)})
    out = printed([one.done()], capsys)
    assert "t0002, t0003 have only one training: those lines compare models. Add seeds with --replicates 3." in out
    assert few not in out


def test_pairs_are_compared_by_name_and_by_any_score(run, capsys):
    out = printed([run, "--trials", "t0000,t0001", "--metric", "val_number_accuracy"], capsys)
    assert "val_number_accuracy on 60 validation images" in out
    assert "t0000 against t0001  t0001 is better: +0." in out
    models = printed([run, "--trials", "t0003,t0004"], capsys)
    assert "t0004's model is better: +0." in models


def test_json_has_a_verdict_as_an_object(run, capsys):
    found = strict_json(printed([run, "--trials", "t0001,t0000", "--json"], capsys))
    assert found["metric"] == "val_map"
    [verdict] = found["verdicts"]
    assert (verdict["first"], verdict["second"], verdict["level"]) == ("t0001", "t0000", "settings")
    assert verdict["significant"] is True
    assert 0 < verdict["low"] < verdict["difference"] < verdict["high"]
    assert 0 <= verdict["p"] < 0.05
    assert verdict["words"].startswith("t0001 is better: +0.")


def test_json_of_a_pair_that_is_not_compared_has_nulls(run, capsys):
    [verdict] = strict_json(printed([run, "--by", "optim.schedule", "--json"], capsys))["verdicts"]
    assert [verdict[name] for name in ("difference", "low", "high", "p", "significant")] == [None] * 5
    assert "too few trials" in verdict["words"]


def test_json_of_the_whole_board_has_the_notes(run, capsys):
    found = strict_json(printed([run, "--json"], capsys))
    assert [one["second"] for one in found["verdicts"]].count("t0000") == 1
    assert any("confirmed, it is better" in line for line in found["notes"])


def test_groups_by_a_parameters_value(run, capsys):
    out = printed([run, "--by", "optim.schedule"], capsys)
    assert "optim.schedule=step against optim.schedule=onecycle  too few trials: 1 and 2, at least 4 of each" in out


def test_trials_of_two_runs_on_the_same_images_are_compared(run, tmp_path, capsys):
    other = Searched(tmp_path / "other")
    other.trial("t0000", 0.2, **{LR: 7e-3})
    other.trial("t0001", 0.6)
    other.trial("t0002", 0.6, **{"optim.epochs": 9})
    folder = other.done()
    out = printed([run, folder, "--trials", "demo:t0000,other:t0000"], capsys)
    assert "demo:t0000's model is better: +0." in out
    out = printed([run, folder, "--trials", "demo:t0000,other:t0001,other:t0002"], capsys)
    assert "not compared: two trainings of one configuration" in out
    assert "not compared: optim.epochs 4 against 9" in out


def test_a_board_of_one_setting_has_nothing_to_compare(tmp_path, capsys):
    one = Searched(tmp_path / "one")
    one.trial("t0000", 0.5)
    assert "nothing to compare: fewer than two configurations have a score" in printed([one.done()], capsys)


def bare(folder):
    one = Searched(folder)
    one.trial("t0000", 0.5, matches=False)
    return one.done()


def of_version_one(folder):
    import pyarrow.parquet as pq

    from results.tables.matches import matches_path
    from results.tables.parquet import write_table

    one = Searched(folder)
    one.trial("t0000", 0.5)
    path = matches_path(folder, "t0000", "val")
    write_table(path, pq.read_table(path).replace_schema_metadata({b"schema_version": b"1"}))
    return one.done()


def on_other_data(folder):
    one = Searched(folder, fingerprint="e" * 32, table=annotations(seed=4))
    one.trial("t0000", 0.5)
    return one.done()


def by_another_metric(folder):
    one = Searched(folder, metric="val_number_accuracy")
    one.trial("t0000", 0.5)
    return one.done()


@pytest.mark.parametrize(
    ("make", "arguments", "said"),
    [
        (bare, [], "has no match tables"),
        (of_version_one, [], "has schema version 1, this program reads 3"),
        (on_other_data, ["{run}", "--trials", "demo:t0000,bad:t0000"], "use different data"),
        (None, ["{run}", "--trials", "t0000"], "names one trial"),
        (None, ["{run}", "--trials", "t0000,t0000"], "names a trial twice"),
        (None, ["{run}", "--trials", "t0000,t9"], "has no such trial"),
        (None, ["{run}", "--trials", "t0000,else:t0001"], "no run 'else'"),
        (None, ["{run}", "--by", "optim.lrr"], "no such parameter varies in this run; did you mean 'optim.lr'"),
        (None, ["{run}", "--by", "optim.lr", "--trials", "t0000,t0001"], "give one of them"),
        (None, ["{run}", "--by", "space"], "have the same value"),
        (on_other_data, ["{run}"], "use different data (data eeeeeeee and data ffffffff); scores on different images"),
        (on_other_data, ["{run}", "--by", "optim.lr"], "--by: compares configurations of one run, 2 are given"),
        (by_another_metric, ["{run}", "--trials", "demo:t0000,bad:t0000"], "have the metrics"),
    ],
)
def test_a_mistake_is_one_sentence(run, tmp_path, make, arguments, said, capsys):
    more = [] if make is None else [str(make(tmp_path / "bad"))]
    assert compare.main(more + [text.format(run=run) for text in arguments]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_retraining_without_scores_stands_in_nobodys_way(tmp_path, capsys):
    from digits_core.config.train_config import TrainConfig
    from digits_core.model.anchors import setting_digest

    made = Searched(tmp_path / "runs" / "retrained")
    made.trial("t0000", 0.9)
    made.trial("t0001", 0.6, **{"optim.lr": 0.002})
    config = TrainConfig()
    made.events.write(
        "trial", trial_id="t0000-r1", space="s", role="retrain", baseline=None, config=config.to_flat(), parent="t0000",
        config_hash=setting_digest(config), seed=9, params={}, trained_on="train+valid",
    )  # fmt: skip
    made.events.write("report", trial_id="t0000-r1", epoch=2, early_stopped=False, train_loss=0.5)
    made.events.write("claim", trial_id="t0000-r1", epoch=2)
    made.events.write("end", trial_id="t0000-r1", status="finished", reason=None)
    made.done()
    assert compare.main([str(tmp_path / "runs" / "retrained")]) == 0
    assert "t0000 against t0001" in capsys.readouterr().out


def test_parameters_of_a_retraining_do_not_vary_in_the_search(tmp_path, capsys):
    made = Searched(tmp_path / "runs" / "demo")
    made.trial("t0000", 0.9)
    made.trial("t0001", 0.6, **{"optim.momentum": 0.5})
    made.retraining("t0000-r1", "t0000", **{LR: 2e-3, "detect.task2.score": 0.39})
    folder = made.done()
    assert compare.main([str(folder), "--by", LR]) == 2
    said = capsys.readouterr().err
    assert "no such parameter varies in this run" in said
    assert "detect." not in said
    assert "optim.momentum" in said


def test_two_runs_are_compared_by_their_best_configurations(run, tmp_path, capsys):
    other = Searched(tmp_path / "other")
    other.trial("t0000", 0.2, **{LR: 7e-3})
    folder = other.done()
    out = printed([run, folder], capsys)
    assert out.startswith("demo leads with t0001, val_map 0.")
    assert "demo is significantly better than other (t0000, val_map 0." in out
    assert "demo:t0001 against demo:t0000" in out
    [verdict] = [
        one
        for one in strict_json(printed([run, folder, "--json"], capsys))["verdicts"]
        if one["second"] == "other:t0000"
    ]
    assert verdict["significant"] is True


def test_runs_with_the_same_best_configuration_have_no_leader(tmp_path, capsys):
    folders = []
    for name in ("one", "two"):
        made = Searched(tmp_path / name)
        made.trial("t0000", 0.9, weights={1: "a", 2: "b"})
        made.trial("t0001", 0.3, **{LR: 7e-3})
        folders.append(made.done())
    first = printed(folders, capsys).splitlines()[0]
    assert first.startswith("The best trials of one (t0000, ")
    assert first.endswith("are the same configuration, with the same weights: none of these runs leads.")


def test_a_lead_that_is_not_significant_is_called_so(tmp_path, capsys):
    folders = []
    for name, rate in (("one", 1e-3), ("two", 2e-3)):
        made = Searched(tmp_path / name)
        made.trial("t0000", 0.8, like=name, **{LR: rate})
        folders.append(made.done())
    assert "as trained models: no significant difference: +0." in printed(folders, capsys).splitlines()[0]


def test_a_run_without_replicates_can_lead_by_its_score(run, tmp_path, capsys):
    other = Searched(tmp_path / "other")
    other.trial("t0000", 1.0, **{LR: 7e-3})
    first = printed([run, other.done()], capsys).splitlines()[0]
    assert first.startswith("other leads with t0000, ")
    assert "demo (t0001, val_map 0." in first
    assert ", the mean of 3 replicates) as trained models: +0." in first


def test_a_run_without_a_score_or_of_another_length_is_named(run, tmp_path, capsys):
    short = Searched(tmp_path / "short")
    short.trial("t0000", 0.7, **{LR: 7e-3, "optim.epochs": 9})
    empty = Searched(tmp_path / "empty")
    first = printed([run, short.done(), empty.done()], capsys).splitlines()[0]
    assert first.startswith("No run leads: the best trainings of the runs differ in length. demo (t0001, val_map 0.")
    assert "short (t0000, val_map 0." in first
    assert "is not compared with demo: optim.epochs " in first
    assert first.endswith("empty has no score yet.")
