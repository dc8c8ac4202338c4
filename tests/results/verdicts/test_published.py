import json

import numpy as np
import pytest
import scipy.stats

from digits_core.config.train_config import TrainConfig
from digits_core.errors import RunError, UsageError
from digits_core.model.anchors import setting_digest
from results import compare
from results.record.folder import read_record_of
from results.statistics import mean_interval, paired_difference, setting_difference, single_run_reach
from results.tables.matches import read_at, resampled_scores
from results.verdicts.published import Published, luck_of
from searched import Searched, strict_json

MANY = 10**9
"""Images, so many that they are no luck."""

OWN = {"detect.task2.nms": 0.3, "detect.task2.class_agnostic": False}


def digest(**parameters):
    return setting_digest(TrainConfig.from_flat(parameters))


def row(label, printed, detect=None, **parameters):
    published = {} if printed is None else {"val_map": printed}
    return {"label": label, "config_hash": digest(**parameters), "published": published, "detect": detect or {}}


def table(title, *rows, reading="as printed", other=None, note=""):
    return {"title": title, "reading": reading, "note": note, "other_question": other or {}, "rows": list(rows)}


def make_run(folder, tables, trials, *, replicates=4, top=9, scheduler="none", measured=None):
    run = Searched(folder)
    for number, (quality, seed, role, parameters) in enumerate(trials):
        run.trial(f"t{number:04d}", quality, seed=seed, role=role, **parameters)
    run.done()
    tree = json.loads((folder / "run.json").read_text())
    tree |= {
        "tables": tables,
        "tables_measured_with": measured or {},
        "base_config": TrainConfig().to_flat(),
        "settings": {"replicates": replicates, "replicate_top": top, "scheduler": scheduler},
    }
    (folder / "run.json").write_text(json.dumps(tree))
    return read_record_of(folder)


def seeds(quality, count=4, **parameters):
    return [(quality, seed, "search" if not seed else "replicate", parameters) for seed in range(count)]


GOOD, ALIKE, POOR = {**OWN, "optim.lr": 1e-3}, {**OWN, "optim.lr": 2e-3}, {**OWN, "optim.lr": 3e-3}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "runs" / "demo"
    tables = [
        table("one", row("good", 0.40, **GOOD), row("poor", 0.45, **POOR)),
        table("two", row("good", 0.400, **GOOD), row("alike", 0.401, **ALIKE)),
        table("three", row("good", 0.40, **GOOD), row("alike", 0.90, **ALIKE)),
        table("four", row("a", 0.41, **GOOD), row("b", 0.40, **GOOD), note="one setting"),
        table("five", row("good", 0.5, **GOOD), row("gone", 0.4, **{"optim.lr": 0.5})),
        table(
            "six", row("good", 0.40, **GOOD), row("poor", 0.45, **POOR), other={"model.min_size": [64, 512]}
        ),
        table(
            "four", row("a", 0.41, **GOOD), row("b", 0.40, {"detect.task1.score": 0.9}, **GOOD), reading="as meant"
        ),
    ]  # fmt: skip
    record = make_run(folder, tables, [*seeds(0.9, **GOOD), *seeds(0.9, **ALIKE), *seeds(0.3, **POOR)])
    return record, folder


def answers(run):
    return {(one.title, one.reading): one for one in Published(*run, "val_map").answers()}


def test_a_difference_that_is_real_is_called_so_and_which_way_the_report_had_it(run):
    [pair] = answers(run)["one", "as printed"].pairs
    assert pair.verdict == "real"
    assert pair.words.startswith("real: good is better by +0.")
    assert pair.words.endswith("in the report the other one is better, by 0.0500")


def test_what_seeds_alone_would_print_is_noise_and_more_than_that_cannot_be_told(run):
    found = answers(run)
    [pair] = found["two", "as printed"].pairs
    assert pair.verdict == "noise"
    assert "the printed 0.0010 is within" in pair.words
    [pair] = found["three", "as printed"].pairs
    assert pair.verdict == "undecided"
    assert "needs about" in pair.words or "a difference this small" in pair.words


def test_one_setting_printed_twice_is_noise(run):
    answer = answers(run)["four", "as printed"]
    assert [pair.verdict for pair in answer.pairs] == ["noise"]
    assert "one configuration, trained twice; the printed 0.0100 comes from the seeds" in answer.pairs[0].words
    assert answer.note == "one setting"


def test_two_readings_of_the_same_models_are_compared_model_by_model(run):
    record, folder = run
    answer = answers(run)["four", "as meant"]
    [pair] = answer.pairs
    assert pair.difference is not None
    (own, _), (other, _) = answer.rows
    trials = [trial for trial in record.trials.values() if trial.config_hash == digest(**GOOD)]
    scores = [read_at(folder, one.trial_id, one.config, {"detect.task1.score": 0.9})[0].map for one in trials]
    assert sorted(other.values) == pytest.approx(sorted(scores))
    assert pair.difference.estimate == pytest.approx(own.values.mean() - other.values.mean())
    assert pair.verdict == "real"  # a higher threshold cuts the tail of every one of them
    assert own.mean > other.mean


def test_the_sign_of_what_cannot_be_told_is_first_minus_second(run):
    for answer in answers(run).values():
        for pair in answer.pairs:
            if pair.verdict in ("noise", "undecided") and pair.difference is not None:
                assert f"{pair.difference.estimate:+.3f} [" in pair.words


def test_thresholds_that_do_not_act_on_a_score_are_no_second_training(run):
    record, folder = run
    found = {(one.title, one.reading): one for one in Published(record, folder, "val_digit_accuracy").answers()}
    [pair] = found["four", "as meant"].pairs
    assert pair.words == "not compared: one configuration, and the thresholds have no effect on val_digit_accuracy"


def test_one_training_of_each_tells_nothing_of_settings(tmp_path):
    tables = [
        table("one", row("good", 0.4, **GOOD), row("poor", 0.5, **POOR)),
        table("two", row("a", 0.41, **GOOD), row("b", 0.40, {"detect.task1.score": 0.9}, **GOOD)),
    ]
    record = make_run(tmp_path / "run", tables, [*seeds(0.9, 1, **GOOD), *seeds(0.3, 1, **POOR)], replicates=1)
    one, two = Published(record, tmp_path / "run", "val_map").answers()
    assert "no configuration has replicates" in one.pairs[0].words
    assert two.pairs[0].words == "not compared: only one training; add replicates with --replicates 3"


def test_a_reading_without_its_match_table_costs_that_row_alone(tmp_path, capsys):
    tables = [table("one", row("good", 0.4, **GOOD), row("far", 0.5, {"detect.task1.nms": 0.7}, **GOOD))]
    make_run(tmp_path / "run", tables, seeds(0.9, **GOOD), measured={"model.min_size": 512})
    assert compare.main([str(tmp_path / "run"), "--by", "table"]) == 0
    out = capsys.readouterr().out
    assert "good against far: not compared:" in out
    assert "has no table for NMS within classes 0.7" in out
    assert "the report used model.min_size 512 (here 64): the verdicts are valid for the values here" in out


def test_a_score_that_the_run_does_not_have_is_a_missing_row(tmp_path):
    tables = [table("one", row("good", 0.4, **GOOD), row("alike", 0.5, **ALIKE))]
    make_run(tmp_path / "run", tables, [*seeds(0.9, 2, **GOOD), *seeds(0.9, 2, **ALIKE)])
    record = read_record_of(tmp_path / "run")
    for trial in record.trials.values():
        for epoch in trial.epochs.values():
            epoch["val_number_accuracy"] = None
    [answer] = Published(record, tmp_path / "run", "val_number_accuracy").answers()
    assert answer.pairs[0].words == "not compared: good has no complete training that counts"


def test_another_question_gets_no_verdict_on_the_report(run):
    answer = answers(run)["six", "as printed"]
    assert answer.other_question == {"model.min_size": (64, 512)}
    assert answer.pairs[0].published is None
    assert "report" not in answer.pairs[0].words


def test_nothing_is_called_noise_before_the_seeds_are_known(tmp_path):
    tables = [table("two", row("good", 0.400, **GOOD), row("alike", 0.401, **ALIKE))]
    record = make_run(tmp_path / "run", tables, [*seeds(0.9, 2, **GOOD), *seeds(0.9, 2, **ALIKE)])
    published = Published(record, tmp_path / "run", "val_map")
    assert published.spread[1] == 2
    assert luck_of(published.spread) is None
    assert published.answers()[0].pairs[0].verdict == "undecided"


def test_a_row_that_was_not_trained_is_named(run):
    [pair] = answers(run)["five", "as printed"].pairs
    assert pair.verdict == "not compared"
    assert pair.words == "not compared: gone has no complete training that counts"


def test_the_first_training_counts_where_nothing_was_chosen_by_it(run, tmp_path):
    assert len(answers(run)["one", "as printed"].rows[0][0].trials) == 4
    tables = [table("one", row("good", 0.4, **GOOD), row("poor", 0.4, **POOR))]
    trials = [*seeds(0.9, **GOOD), *seeds(0.3, **POOR)]
    for name, more in (("top", {"top": 1}), ("asha", {"scheduler": "asha"})):
        record = make_run(tmp_path / name, tables, trials, **more)
        [answer] = Published(record, tmp_path / name, "val_map").answers()
        assert [len(one.trials) for one, _ in answer.rows] == [3, 3]


def same_at_the_best_epoch(folder, *, detect=None):
    """Two settings whose models are the same, seed for seed, at the first epoch, which is the best."""
    tables = [table("levels", row("four", 0.4653, **GOOD), row("two", 0.4633, **ALIKE, **(detect or {})))]
    trials = []
    for parameters, other in ((GOOD, None), ({**ALIKE, **(detect or {})}, "t000")):
        for seed in range(2):
            more = {"peak": 1, "weights": {1: f"w{seed}", 2: f"{len(trials)}"}}
            like = {} if other is None else {"like": f"{other}{seed}"}
            trials.append((0.9, seed, "replicate" if seed else "search", {**parameters, **more, **like}))
    return make_run(folder, tables, trials)


def test_settings_that_are_one_model_at_their_best_epoch_are_seen_by_their_weights(tmp_path):
    record = same_at_the_best_epoch(tmp_path / "run")
    [answer] = Published(record, tmp_path / "run", "val_map").answers()
    words = "noise: the weights at the best epoch are the same for each seed; the parameter had no effect"
    assert answer.pairs[0].words == words


def test_the_same_weights_read_at_other_thresholds_are_no_one_model(tmp_path):
    record = same_at_the_best_epoch(tmp_path / "run", detect={"detect.task1.score": 0.9})
    [answer] = Published(record, tmp_path / "run", "val_map").answers()
    assert answer.rows[0][0].mean > answer.rows[1][0].mean
    assert answer.pairs[0].difference is not None


def test_scores_at_a_trials_own_thresholds_are_its_own(run):
    record, folder = run
    trial = record.trials["t0000"]
    scores, resampled = read_at(folder, "t0000", trial.config, {})
    assert scores.map == pytest.approx(trial.best("val_map")["val_map"])
    np.testing.assert_array_equal(resampled["map"], resampled_scores(folder, "t0000", trial.config)["map"])
    with pytest.raises(RunError, match=r"has no table for NMS within classes 0\.7"):
        read_at(folder, "t0000", trial.config, {"detect.task1.nms": 0.7})


def test_the_command_prints_every_table(run, capsys):
    assert compare.main([str(run[1]), "--by", "table"]) == 0
    out = capsys.readouterr().out
    for said in ("one (as printed)", "four (as meant)", "report: validation mAP", "real: good is better by"):
        assert said in out
    assert "model.min_size is 64 here and was 512 in the report: another question" in out


def test_a_run_without_tables_says_where_they_are(tmp_path, capsys):
    run = Searched(tmp_path / "run")
    run.trial("t0000", 0.9)
    folder = run.done()
    assert compare.main([str(folder), "--by", "table"]) == 2
    assert "has no published tables; reports and reports_tiny have" in capsys.readouterr().err
    with pytest.raises(UsageError):
        Published(read_record_of(folder), folder, "val_map")


def test_paired_readings_have_less_luck_than_two_sets_of_models():
    generator = np.random.default_rng(0)
    common = generator.normal(0.5, 0.02, 4)
    images = generator.normal(0, 0.01, (4, 500))
    each = 0.01 + generator.normal(0, 0.004, 4)
    each += 0.01 - each.mean()
    paired = paired_difference(each.tolist(), np.zeros((4, 500)), MANY)
    reach = scipy.stats.t.ppf(0.975, 3) * each.std(ddof=1) / 2  # a paired t-test, where images are no luck
    assert paired.high - paired.estimate == pytest.approx(reach)
    assert paired.p == pytest.approx(scipy.stats.ttest_1samp(each, 0).pvalue, rel=1e-3)
    apart = setting_difference(common + 0.01, common, images + 0.01, images, MANY, 0.02**2, 6)
    assert paired.estimate == pytest.approx(apart.estimate)
    assert paired.high - paired.low < apart.high - apart.low


def test_the_reach_of_single_runs_holds_for_95_of_100():
    generator = np.random.default_rng(1)
    for freedom in (5, 20):
        first, second = generator.normal(0, 0.01, (2, 20_000))
        estimated = 0.01**2 * generator.chisquare(freedom, 20_000) / freedom
        reach = np.array([single_run_reach(one, freedom) for one in estimated])
        assert np.mean(np.abs(first - second) <= reach) == pytest.approx(0.95, abs=0.005)


def test_the_interval_of_a_mean_covers_it():
    generator = np.random.default_rng(2)
    hits = 0
    for _ in range(400):
        values = 0.5 + generator.normal(0, 0.02, 4)
        low, high = mean_interval(values.tolist(), np.full((4, 10), 0.5), MANY, 0.02**2, 10**6)
        hits += low <= 0.5 <= high
    assert 0.92 <= hits / 400 <= 0.98


def test_published_verdicts_are_printed_as_json(run, capsys):
    _, folder = run
    assert compare.main([str(folder), "--by", "table", "--json"]) == 0
    found = strict_json(capsys.readouterr().out)
    published = Published(read_record_of(folder), folder, "val_map").answers()
    assert [table["title"] for table in found["tables"]] == [answer.title for answer in published]
    for table, answer in zip(found["tables"], published, strict=True):
        assert [one["verdict"] for one in table["verdicts"]] == [pair.verdict for pair in answer.pairs]
        assert [one["published_difference"] for one in table["verdicts"]] == [pair.published for pair in answer.pairs]
