"""What a retraining takes from a run, and what a user can get wrong."""

import json

import pytest

from digits_core.config import TrainConfig
from digits_core.errors import RunError, UsageError
from results.store import read_record_of
from search import retrain
from search.model_folder import card, with_optima
from search.retrain import Plan, build_parser, choose_trial, crew, place_for, retrain_config
from searched import Searched


def test_best_is_by_the_runs_metric(tmp_path):
    run = Searched(tmp_path / "run")
    run.trial("t0000", 0.4, **{"optim.lr": 1e-3})
    run.trial("t0001", 0.9, **{"optim.lr": 2e-3})
    record = read_record_of(run.done())
    trial, why = choose_trial(record, tmp_path / "run", "best")
    assert trial.trial_id == "t0001"
    assert why.startswith("best by val_map, 0.")
    assert choose_trial(record, tmp_path / "run", "t0000")[0].trial_id == "t0000"


def test_best_is_by_the_confirmation_where_there_was_one(tmp_path):
    run = Searched(tmp_path / "run")
    seed = 0
    for name, quality, confirmed in (("t0000", 0.9, 0.3), ("t0001", 0.7, 0.9)):
        knobs = {"optim.lr": 1e-3 * (int(name[-1]) + 1)}
        run.trial(name, quality, baseline="default" if name == "t0000" else None, **knobs)
        for more in (1, 2):
            seed += 1
            run.trial(f"{name}c{more}", quality, seed=seed + 100, role="confirm", confirm=confirmed, **knobs)
    record = read_record_of(run.done())
    trial, why = choose_trial(record, tmp_path / "run", "best")
    assert trial.trial_id == "t0001"
    assert why.startswith("best of the 2 confirmed settings")


def test_the_config_is_the_trials_at_its_swept_thresholds_with_the_flags(tmp_path):
    run = Searched(tmp_path / "run")
    run.trial("t0000", 0.9, **{"optim.lr": 1e-3})
    trial = read_record_of(run.done()).trials["t0000"]
    trial.optima = {"task2_nms": 0.2, "task2_score": 0.3, "task2_class_agnostic": True, "task2_max_detections": 100}
    args = build_parser().parse_args(["run", "--epochs", "9", "--set", "optim.lr=2e-3"])
    config = retrain_config(trial, args)
    assert (config.optim.epochs, config.optim.lr) == (9, 2e-3)
    assert (config.detect.task2.nms, config.detect.task2.score) == (0.2, 0.3)
    assert retrain.changes(config, trial) == ["optim.lr = 0.002 (was 0.001)", "optim.epochs = 9 (was 4)"]


def test_task_2_never_reads_under_what_task_1_keeps():
    detect = TrainConfig().detect
    best = {
        f"task1_{k}": v for k, v in (("nms", 0.6), ("score", 0.4), ("class_agnostic", False), ("max_detections", 50))
    }
    best |= {
        f"task2_{k}": v for k, v in (("nms", 0.2), ("score", 0.3), ("class_agnostic", True), ("max_detections", 90))
    }
    found = with_optima(detect, best)
    assert (found.task1.score, found.task2.score) == (0.3, 0.3)
    assert found.task1.max_detections == 50


@pytest.mark.parametrize(
    ("machine", "gpus", "workers", "expected"),
    [
        ({"CPU": 4.0, "GPU": 0.0}, None, None, (1, False)),
        ({"CPU": 4.0, "GPU": 0.0}, None, 3, (3, False)),
        ({"CPU": 4.0, "GPU": 2.0}, None, None, (1, True)),
        ({"CPU": 4.0, "GPU": 2.0}, 2, None, (2, True)),
        ({"CPU": 4.0, "GPU": 2.0}, 0, None, (1, False)),
    ],
)
def test_who_trains_together(machine, gpus, workers, expected):
    assert crew(machine, gpus, workers) == expected


def test_more_than_there_are_is_one_sentence():
    with pytest.raises(UsageError, match="--gpus 2: there are none here"):
        crew({"CPU": 4.0, "GPU": 0.0}, 2, None)
    with pytest.raises(UsageError, match="--workers 9: there are 4 cores"):
        crew({"CPU": 4.0, "GPU": 0.0}, None, 9)


def test_an_interrupted_retraining_is_found_again_and_another_gets_another_name(tmp_path):
    run = Searched(tmp_path / "run")
    run.trial("t0000", 0.9)
    record, folder = read_record_of(run.done()), tmp_path / "run"
    plan = Plan("t0000", TrainConfig().to_flat(), "train", None, 1, False)
    assert place_for(folder, record, plan) == "t0000-r1"
    state = folder / "retrain" / "t0000-r1"
    state.mkdir(parents=True)
    (state / "plan.json").write_text(json.dumps(retrain.asdict(plan)))
    assert place_for(folder, record, plan) == "t0000-r1"
    other = Plan("t0000", TrainConfig().to_flat(), "train+valid", 2, 1, False)
    assert place_for(folder, record, other) == "t0000-r2"


def test_the_card_says_what_it_is_and_what_it_is_not():
    metrics = {
        "run": "r", "parent": "t0", "seed": 1, "trained_on": "train+valid", "epochs": 3, "workers": 2, "device": "cpu",
        "data": "d", "fingerprint": "f", "categories": "digits", "num_train": 9, "num_valid": 0, "scores": {},
    }  # fmt: skip
    text = card("m", TrainConfig.from_flat({"optim.lr": 0.5}), metrics)
    assert "None: it trained on the validation images too" in text
    assert "| `optim.lr` | 0.5 |" in text
    text = card("m", TrainConfig(), metrics | {"num_valid": 5, "scores": {"val_map": [0.5, 0.4, 0.6]}})
    assert "| map | 0.500 | [0.400, 0.600] |" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{tmp}/none"], "no such run folder"),
        (["{tmp}/run", "--trial", "t0009"], "run 'run' has no such trial"),
        (["{tmp}/run", "--trial", "t0001"], "--trial t0001: it has no score (failed)"),
        (["{tmp}/empty"], "run 'empty' has no finished trial"),
        (["{tmp}/run", "--on", "valid"], "invalid choice: 'valid'"),
        (["{tmp}/run", "--replicates", "0"], "must be a whole number of at least 1"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, said, tmp_path, capsys):
    run = Searched(tmp_path / "run")
    run.trial("t0000", 0.9)
    run.trial("t0001", 0.5, status="failed", **{"optim.lr": 1e-3})
    run.done()
    Searched(tmp_path / "empty").done()
    try:
        code = retrain.main([text.format(tmp=tmp_path) for text in arguments])
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run" / "retrain").exists()
    with pytest.raises(RunError):
        choose_trial(read_record_of(tmp_path / "empty"), tmp_path / "empty", "best")
