import pytest

from digits_core.config import TrainConfig
from oracle import table_of
from search.screen import MARGIN, Screen

TABLE = table_of([[((10.0, 10.0, 23.0, 36.0), 1, False)]], side=64)  # an anchor of the default, nearly


def config(sizes):
    return TrainConfig.from_flat({"model.anchor_sizes": sizes, "model.fresh_rpn": True})


def test_settings_far_under_the_best_baseline_are_screened_with_the_figures():
    screen = Screen(TABLE, active=True)
    good, reason = screen.look(TrainConfig(), baseline=True)
    assert reason is None
    bad, reason = screen.look(config("200,250,300,350,400"), baseline=False)
    assert bad.mean_iou < good.mean_iou - MARGIN
    assert reason == (
        f"screen: its anchors overlap the training digits by a mean IoU of {bad.mean_iou:.2f}, the best baseline's by "
        f"{good.mean_iou:.2f}"
    )
    assert screen.look(config("17,26,38,55,80"), baseline=False)[1] is None


def test_a_resumed_search_knows_the_baselines_of_the_driver_before():
    bad = config("200,250,300,350,400")
    assert Screen(TABLE, active=True).look(bad, baseline=False)[1] is None
    assert "the best baseline's by 0.80" in Screen(TABLE, active=True, best_baseline=0.8).look(bad, baseline=False)[1]


@pytest.mark.parametrize(("active", "baseline"), [(False, False), (True, True)])
def test_baselines_and_switched_off_screens_measure_only(active, baseline):
    screen = Screen(TABLE, active=active)
    screen.look(TrainConfig(), baseline=True)
    found, reason = screen.look(config("200,250,300,350,400"), baseline=baseline)
    assert reason is None
    assert found.recall_50 == 0
