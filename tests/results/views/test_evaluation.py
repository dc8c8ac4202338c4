import json
from dataclasses import replace

import numpy as np
import pytest

from digits_core.config.train_config import TrainConfig
from results.figures.evaluation import FIGURES
from results.tables.matches import read_matches, resampled_scores
from results.views.evaluation import evaluation_of, tables_of
from searched import Searched, strict_json

DETECT = TrainConfig().detect


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = Searched(tmp_path_factory.mktemp("runs") / "demo")
    made.trial("t0000", 0.8)
    return made.done()


@pytest.fixture(scope="module")
def stored(folder):
    return read_matches(folder / "matches" / "t0000.parquet")


def test_the_resamples_of_the_run_folder_give_the_same_evaluation(folder, stored):
    resampled = resampled_scores(folder, "t0000", TrainConfig().to_flat())
    assert evaluation_of(stored, DETECT, str, resampled) == evaluation_of(stored, DETECT, str)


def test_without_resamples_scores_have_no_interval(stored):
    found = evaluation_of(stored, DETECT, str, {})
    assert all(set(one) == {"value"} for one in found["scores"].values())
    [scores, *_] = tables_of(found)
    assert [row[2] for row in scores[2]] == [""] * len(scores[2])


def test_images_without_a_digit_have_an_evaluation_and_figures(stored):
    truth = stored.truth
    none = {name: getattr(truth, name)[:0] for name in ("image", "labels", "boxes")}
    tasks = [replace(one, matched=np.zeros_like(one.matched)) for one in (stored.task1, stored.task2)]
    bare = replace(stored, truth=replace(truth, **none), task1=tasks[0], task2=tasks[1])
    found = evaluation_of(bare, DETECT, str)
    assert strict_json(json.dumps(found))["digits"] == 0
    assert found["scores"]["map"]["value"] is None
    assert found["classes"] == []
    assert all(rows for title, _, rows in tables_of(found) if title != "Classes")
    titles = [draw(found).layout.title.text for _, _, draw in FIGURES]
    assert titles == ["Precision-recall curves", "Confusion matrix", "Errors", "Digits found by height"]
