from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from digits_core.config.train_config import DetectConfig, TaskConfig, TrainConfig
from digits_core.errors import RunError
from digits_core.evaluation.evaluate import match_tasks
from digits_core.evaluation.metrics import Boxes, MatchTable, Truth, score
from oracle import candidates_of, split_of
from results.record.schema import MATCHES
from results.tables.matches import (
    BOOTSTRAP_FOLDER,
    RESAMPLES,
    StoredMatches,
    matches_path,
    read_matches,
    resampled_scores,
    sample_size,
    score_intervals,
    write_matches,
)
from results.tables.parquet import write_table
from searched import Searched


def stored(detect, many=0):
    box, crowd = (0.0, 0.0, 10.0, 20.0), (40.0, 0.0, 60.0, 20.0)
    split = split_of([[(box, 3, False), (crowd, 5, True)], [], [(box, 10, False), ((20.0, 0.0, 30.0, 20.0), 1, False)]])
    rows = [((70.0, k * 2.0, 72.0, k * 2.0 + 1), 4, 0.2) for k in range(many)]
    found = candidates_of([[(box, 3, 0.9), (crowd, 5, 0.6), ((1.0, 0.0, 10.0, 20.0), 4, 0.3)], [], rows])
    return StoredMatches(split.table.image_ids, Truth.from_table(split.table), *match_tasks(found, split, detect))


@pytest.mark.parametrize("many", [0, 3])
def test_match_tables_come_back_as_they_were(tmp_path, many):
    detect = DetectConfig()
    before = stored(detect, many)
    write_matches(tmp_path / "m.parquet", before, detect)
    after = read_matches(tmp_path / "m.parquet")
    assert np.array_equal(after.image_ids, before.image_ids)
    for name in ("num_images", "image", "labels", "numbers", "boxes"):
        assert np.array_equal(getattr(after.truth, name), getattr(before.truth, name))
    for name in Boxes.__slots__:
        assert np.array_equal(getattr(after.truth.crowds, name), getattr(before.truth.crowds, name))
    for task in ("task1", "task2"):
        for name in MatchTable.__slots__:
            assert np.array_equal(getattr(getattr(after, task), name), getattr(getattr(before, task), name)), name
    assert pq.read_schema(tmp_path / "m.parquet").equals(MATCHES)
    assert pq.read_table(tmp_path / "m.parquet").column("number").to_pylist() == ["2", "-1", "90"]


def test_tables_of_older_versions_are_read_without_annotated_boxes(tmp_path):
    detect = DetectConfig()
    write_matches(tmp_path / "m.parquet", stored(detect), detect)
    table = pq.read_table(tmp_path / "m.parquet").drop_columns(["truth_boxes", "crowds", "crowd_boxes"])
    write_table(tmp_path / "m.parquet", table)
    truth = read_matches(tmp_path / "m.parquet").truth
    assert truth.boxes is None
    assert truth.crowds is None
    assert truth.labels.tolist() == [3, 10, 1]


def test_an_image_keeps_a_hundred_detections_or_as_many_as_its_task_asks_for(tmp_path):
    for limit, kept in ((100, 100), (120, 110)):
        detect = DetectConfig(task1=TaskConfig(max_detections=limit))
        write_matches(tmp_path / "m.parquet", stored(detect, 110), detect)
        assert len(read_matches(tmp_path / "m.parquet").task1.scores) == 3 + kept


def test_the_bootstrap_is_made_once_and_anew_when_the_matches_change(tmp_path):
    run = Searched(tmp_path / "r")
    scores = run.trial("t0000", 0.7)
    folder, config = run.done(), TrainConfig().to_flat()
    first = resampled_scores(folder, "t0000", config)
    assert set(first) == {"map", "map_50", "map_75", "digit_accuracy", "number_accuracy"}
    assert all(values.shape == (RESAMPLES,) for values in first.values())
    assert first["map"].mean() == pytest.approx(scores.map, abs=0.03)
    assert first["number_accuracy"].mean() == pytest.approx(scores.number_accuracy, abs=0.02)
    target = folder / BOOTSTRAP_FOLDER / "t0000.parquet"
    written = target.stat().st_mtime_ns
    assert np.array_equal(resampled_scores(folder, "t0000", config)["map"], first["map"])
    assert target.stat().st_mtime_ns == written
    detect = TrainConfig().detect
    target.write_bytes(b"")  # a derived file: a damaged one is made anew
    assert np.array_equal(resampled_scores(folder, "t0000", config)["map"], first["map"])
    write_matches(matches_path(folder, "t0000", "val"), stored(detect), detect)
    assert resampled_scores(folder, "t0000", config, make=False) == {}
    assert not np.array_equal(resampled_scores(folder, "t0000", config)["map"], first["map"])


def test_scores_of_exactly_one_have_intervals_that_images_leave_open(tmp_path):
    run = Searched(tmp_path / "r")
    scores = run.trial("t0000", 1.0)
    points = {"number_accuracy": scores.number_accuracy, "map_50": scores.map_50, "digit_accuracy": 1.0}
    assert set(points.values()) == {1.0}
    ends = score_intervals(run.done(), "t0000", TrainConfig().to_flat(), "val", points)
    low, high = stats.binomtest(60, 60).proportion_ci(0.95, method="wilson")
    assert ends["number_accuracy"] == pytest.approx((low, high))
    assert ends["map_50"] == ends["digit_accuracy"]
    assert 0.9 < ends["map_50"][0] < low  # by Student's t


def test_images_without_digits_bear_on_numbers_only(tmp_path):
    detect = DetectConfig()
    write_matches(tmp_path / "m.parquet", stored(detect), detect)
    assert [sample_size(tmp_path / "m.parquet", name) for name in ("number_accuracy", "map", "digit_accuracy")] == [
        3,
        2,
        2,
    ]


def test_two_trials_of_a_run_share_their_resamples(tmp_path):
    run = Searched(tmp_path / "r")
    run.trial("t0000", 0.7)
    matches = matches_path(run.folder, "t0000", "val").read_bytes()
    run.trial("t0001", 0.9, **{"optim.lr": 1e-3})
    matches_path(run.folder, "t0001", "val").write_bytes(matches)
    config = TrainConfig().to_flat()
    assert np.array_equal(
        resampled_scores(run.done(), "t0000", config)["map"], resampled_scores(run.folder, "t0001", config)["map"]
    )


def test_a_trial_without_match_tables_has_no_resamples(tmp_path):
    assert resampled_scores(tmp_path, "t0000", {}) == {}


def test_damaged_tables_and_those_of_another_version_are_one_sentence(tmp_path):
    path = tmp_path / "m.parquet"
    with pytest.raises(RunError, match="no such file"):
        read_matches(path)
    path.write_bytes(b"PAR1 no")
    with pytest.raises(RunError, match="is damaged or no Parquet file"):
        read_matches(path)
    detect = DetectConfig()
    write_matches(path, stored(detect), detect)
    write_table(path, pq.read_table(path).replace_schema_metadata({b"schema_version": b"1"}))
    with pytest.raises(RunError, match="has schema version 1, this program reads 3"):
        read_matches(path)


def test_scores_read_from_disk_are_those_of_the_training(tmp_path):
    run = Searched(tmp_path / "r")
    before = run.trial("t0000", 0.8)
    one = read_matches(matches_path(run.done(), "t0000", "val"))
    after = score(one.task1, one.task2, one.truth, TrainConfig().detect)
    assert after == before


def test_tables_of_another_epoch_than_the_best_are_refused(tmp_path):
    detect = TrainConfig().detect
    (tmp_path / "matches").mkdir()
    path = matches_path(tmp_path, "t0000", "val")
    config = TrainConfig().to_flat()
    write_matches(path, replace(stored(detect), epoch=1), detect)
    assert read_matches(path, 1).epoch == 1
    assert score_intervals(tmp_path, "t0000", config, "val", {"map": 0.5}, epoch=1)
    for read in (
        lambda: read_matches(path, 3),
        lambda: score_intervals(tmp_path, "t0000", config, "val", {"map": 0.5}, epoch=3),
    ):
        with pytest.raises(RunError, match="is of epoch 1, but the best epoch in the record is 3"):
            read()
    write_matches(path, stored(detect), detect)  # as older versions wrote them, without saying
    assert read_matches(path, 3).epoch is None
