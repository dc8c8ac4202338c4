import pytest

from digits_core.config.train_config import TrainConfig
from oracle import table_of
from search.policy.screen import MARGIN, Screen

TABLE = table_of([[((10.0, 10.0, 23.0, 36.0), 1, False)]], side=64)  # an anchor of the default, nearly


def config(sizes):
    return TrainConfig.from_flat({"model.anchor_sizes": sizes, "model.fresh_rpn": True})


BAD = "200,250,300,350,400"


def test_settings_far_under_the_best_baseline_are_screened_with_the_figures():
    screen = Screen(TABLE, active=True)
    good, reason = screen.look(TrainConfig(), None)
    assert reason is None
    bad, reason = screen.look(config(BAD), good.mean_iou)
    assert bad.mean_iou < good.mean_iou - MARGIN
    assert reason == (
        f"screen: its anchors overlap the training digits by a mean IoU of {bad.mean_iou:.2f}, the best baseline's by "
        f"{good.mean_iou:.2f}"
    )
    assert screen.look(config("17,26,38,55,80"), good.mean_iou)[1] is None


@pytest.mark.parametrize(("active", "best"), [(False, 0.8), (True, None)])
def test_baselines_and_switched_off_screens_measure_only(active, best):
    found, reason = Screen(TABLE, active=active).look(config(BAD), best)
    assert reason is None
    assert found.recall_50 == 0
