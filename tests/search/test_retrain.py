"""What a retraining uses from a run, and mistakes of a user."""

import json
import re
import shutil

import pytest
import yaml

from digits_core import predict
from digits_core.config.train_config import TrainConfig
from digits_core.errors import RunError, UsageError
from digits_core.model.build import DRAWN_WEIGHTS
from results.record.folder import read_record_of
from results.record.log import EventWriter
from results.record.schema import EPOCH_NUMBERS
from results.views.leaderboard import leaderboard_table
from search import retrain
from search.cli.settings import SearchSettings
from search.models.card import card
from search.models.folder import CARD_FILE, with_optima
from search.models.plan import Plan
from search.models.record import keep_retraining
from search.models.train_loop import MODEL_FOLDER
from search.policy.decisions import Policy, is_open
from search.policy.plan import Plan as SearchPlan
from search.retrain import build_parser, choose_trial, crew, place_for, retrain_config
from search.storage.storage import Storage
from search.tune.recorder import Recorder
from searched import Searched
from spaces.catalogue import SPACES


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
        parameters = {"optim.lr": 1e-3 * (int(name[-1]) + 1)}
        run.trial(name, quality, baseline="default" if name == "t0000" else None, **parameters)
        for more in (1, 2):
            seed += 1
            run.trial(f"{name}c{more}", quality, seed=seed + 100, role="confirm", confirm=confirmed, **parameters)
    record = read_record_of(run.done())
    trial, why = choose_trial(record, tmp_path / "run", "best")
    assert trial.trial_id == "t0001"
    assert why.startswith("best of the 2 confirmed configurations")


def test_a_confirmed_setting_of_a_shorter_plan_is_not_best(tmp_path):
    run = Searched(tmp_path / "run", epochs=3)
    for name, epochs, confirmed in (("t0000", 3, 0.9), ("t0001", 6, 0.4)):
        run.start(epochs)
        parameters = {"optim.lr": 1e-3 * epochs, "optim.epochs": epochs}
        run.trial(name, 0.8, epochs=epochs, **parameters)
        for seed in (101, 102):
            run.trial(f"{name}c{seed}", 0.8, epochs=epochs, seed=seed, role="confirm", confirm=confirmed, **parameters)
    record = read_record_of(run.done())
    assert choose_trial(record, tmp_path / "run", "best")[0].trial_id == "t0001"


def test_the_config_is_the_trials_at_its_swept_thresholds_with_the_flags(tmp_path):
    run = Searched(tmp_path / "run")
    run.trial("t0000", 0.9, **{"optim.lr": 1e-3})
    trial = read_record_of(run.done()).trials["t0000"]
    trial.optima_after[1] = {
        "task2_nms": 0.2,
        "task2_score": 0.3,
        "task2_class_agnostic": True,
        "task2_max_detections": 100,
    }
    args = build_parser().parse_args(["run", "--epochs", "9", "--set", "optim.lr=2e-3"])
    config = retrain_config(trial, args, tmp_path / "run")
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
    with pytest.raises(UsageError, match="--gpus 2: this machine has none"):
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


METRICS = {
    "run": "r", "parent": "t0", "seed": 1, "trained_on": "train+valid", "epochs": 3, "workers": 2, "device": "cpu",
    "ends_after": "It ended after 3 epochs.",
    "data": "/data/my digits", "fingerprint": "f", "categories": "digits", "num_train": 9, "images_per_epoch": 9,
    "num_valid": 0, "scores": {}, "searched": [],
}  # fmt: skip


def metadata_of(text):
    _, front, body = text.split("---\n", 2)
    assert body.lstrip().startswith("# ")
    return yaml.safe_load(front)


def test_the_card_says_what_it_is_and_what_it_is_not():
    text = card("m", TrainConfig.from_flat({"optim.lr": 0.5}), METRICS)
    assert "None: it trained on the validation images too" in text
    assert "| `optim.lr` | 0.5 |" in text
    assert "model-index" not in metadata_of(text)
    text = card("m", TrainConfig(), METRICS | {"num_valid": 5, "scores": {"val_map": [0.5, 0.4, 0.6]}})
    assert "| map | 0.500 | [0.400, 0.600] |" in text


def test_the_card_tells_searched_parameters_from_fixed_ones():
    config = TrainConfig.from_flat({"model.fresh_rpn": True, "optim.momentum": 0.5, "runtime.seed": 7})
    text = card("m", config, METRICS | {"searched": ["optim.momentum", "optim.lr", "detect.task1.nms"]})
    searched, _, others = text.partition("## Searched parameters")[2].partition("## Other parameters that differ")
    assert re.findall(r"`(\S+)`", searched) == ["optim.lr", "optim.momentum"]
    assert re.findall(r"\| `(\S+)` \|", others) == ["model.fresh_rpn"]
    assert "2 processes on cpu" in text
    assert "1 process on cpu" in card("m", TrainConfig(), METRICS | {"workers": 1})
    assert "None." in card("m", TrainConfig(), METRICS).partition("## Searched parameters")[2]


def test_the_searched_parameters_of_a_card_are_those_that_vary_in_the_run(tmp_path, tiny_data):
    run = Searched(tmp_path / "run")
    run.trial("t0000", 0.9)
    run.trial("t0001", 0.4, **{"optim.lr": 1e-3})
    folder = run.done()
    shutil.copytree(DRAWN_WEIGHTS, folder / "retrain" / "t0000-r1" / MODEL_FOLDER)
    kept(folder, tiny_data, "t0000-r1", "train+valid", epoch_numbers(None, None))
    assert json.loads((folder / "models" / "t0000-r1" / "metrics.json").read_text())["searched"] == ["optim.lr"]


def test_the_metadata_of_a_card_have_every_score_with_its_interval_and_the_split(searched_run, tiny_data):
    kept(searched_run, tiny_data, "t0000-r1", "train", epoch_numbers(0.1, 0.2))
    model = searched_run / "models" / "t0000-r1"
    scores = json.loads((model / "metrics.json").read_text())["scores"]
    tree = metadata_of((model / CARD_FILE).read_text())
    [index] = tree["model-index"]
    [result] = index["results"]
    assert (index["name"], tree["pipeline_tag"]) == ("t0000-r1", "object-detection")
    assert result["task"]["type"] == "object-detection"
    assert (result["dataset"]["split"], result["dataset"]["args"]["num_images"]) == ("validation", 4)
    found = {f"val_{one['type']}": [one["value"], *one["args"]["interval_95"]] for one in result["metrics"]}
    assert found == scores
    assert all(one["name"] for one in result["metrics"])


def test_the_metadata_of_a_card_name_data_of_any_name():
    odd = METRICS | {"data": "s3://bucket/my: 'digits' #1", "scores": {"val_map": [0.5, 0.4, 0.6]}}
    [result] = metadata_of(card("m", TrainConfig(), odd))["model-index"][0]["results"]
    assert result["dataset"]["type"] == "my-digits-1"
    assert result["dataset"]["name"] == "my: 'digits' #1, validation images"


def kept(folder, tiny_data, name, trained_on, epochs):
    """The run folder with a model kept as a retraining of its one trial."""
    config = TrainConfig.from_flat({"optim.epochs": len(epochs)})
    plan = Plan("t0000", config.to_flat(), trained_on, 2 if trained_on != "train" else None, 1, False)
    keep_retraining(folder, name, plan, epochs, SearchSettings(space="anchors", name="run"), tiny_data)
    return read_record_of(folder)


@pytest.fixture
def searched_run(tmp_path):
    """A run with one trial and the trained models of two retrainings, not yet recorded."""
    run = Searched(tmp_path / "run")
    run.trial("t0000", 0.9)
    folder = run.done()
    for name in ("t0000-r1", "t0000-r2"):
        model = folder / "retrain" / name / MODEL_FOLDER
        model.parent.mkdir(parents=True)
        shutil.copytree(DRAWN_WEIGHTS, model)
    return folder


def epoch_numbers(*scores):
    return [
        {key: None for key in EPOCH_NUMBERS}
        | {"epoch": epoch, "val_map": score, "val_number_accuracy": score, "early_stopped": False, "device": "cpu",
           "model": {}, "improved": score is None or score == max(scores[:epoch]), "train_seconds": 1.0}
        for epoch, score in enumerate(scores, start=1)
    ]  # fmt: skip


def test_the_row_says_what_the_folder_holds(searched_run, tiny_data):
    record = kept(searched_run, tiny_data, "t0000-r1", "train", epoch_numbers(0.1, 0.999, 0.2))
    scores = json.loads((searched_run / "models" / "t0000-r1" / "metrics.json").read_text())["scores"]
    row = next(row for row in leaderboard_table(record, searched_run).to_pylist() if row["role"] == "retrain")
    assert (row["best_epoch"], row["parent"]) == (2, "t0000")
    assert row["val_map"] == scores["val_map"][0] != 0.999
    assert row["val_map_low"] == pytest.approx(scores["val_map"][1])


def test_a_model_of_train_and_valid_can_be_used_as_it_is(searched_run, tiny_data, tmp_path, capsys):
    record = kept(searched_run, tiny_data, "t0000-r2", "train+valid", epoch_numbers(None, None))
    model = searched_run / "models" / "t0000-r2"
    assert "ended after 2 epochs, the best epoch of its trial" in (model / "MODEL_CARD.md").read_text()
    row = next(row for row in leaderboard_table(record, searched_run).to_pylist() if row["role"] == "retrain")
    assert (row["trained_on"], row["val_map"], row["status"]) == ("train+valid", None, "finished")
    from digits_core.data.drawn import write_drawn_folder

    write_drawn_folder(tmp_path / "drawn", 1, 3, seed=3)
    assert predict.main([str(model), str(tmp_path / "drawn" / "valid"), "-o", str(tmp_path / "out")]) == 0


def test_task_1_keeps_what_task_2_reads_whatever_the_sweep_says(tmp_path):
    run = Searched(tmp_path / "run")
    run.trial("t0000", 0.9)
    trial = read_record_of(run.done()).trials["t0000"]
    for task, score in (("task1", 0.41), ("task2", 0.35)):
        more = {"nms": 0.5, "score": score, "class_agnostic": True, "max_detections": 100}
        trial.optima_after.setdefault(1, {}).update({f"{task}_{key}": value for key, value in more.items()})
    config = retrain_config(trial, build_parser().parse_args(["run", "--on", "train+valid"]), tmp_path / "run")
    assert (config.detect.task1.score, config.detect.task2.score) == (0.35, 0.35)


def test_a_search_that_goes_on_leaves_retrained_models_alone(searched_run, tiny_data):
    kept(searched_run, tiny_data, "t0000-r1", "train", epoch_numbers(0.1, 0.2))
    events = EventWriter(searched_run, "run")
    events.write("trial", trial_id="t0000-r9", role="retrain", parent="t0000", space="s", baseline=None, config={
        "optim.epochs": 3}, config_hash="x", seed=1, params={})  # fmt: skip
    recorder = Recorder(
        events, Storage(searched_run), Policy(SearchPlan(SPACES["anchors"], TrainConfig(), 1)), keep=1,
        watcher=lambda record, name: None,
    )  # fmt: skip
    assert not any(is_open(trial) for trial in events.record.trials.values())  # it is retrain's to go on with
    recorder.finish()
    events.close()
    assert (searched_run / "models" / "t0000-r1" / "model.safetensors").is_file()
    record = read_record_of(searched_run)
    assert record.trials["t0000-r1"].checkpoint == "models/t0000-r1"
    assert record.trials["t0000-r9"].status == "running"


def test_a_retraining_of_a_retraining_is_refused(searched_run, tiny_data):
    record = kept(searched_run, tiny_data, "t0000-r1", "train", epoch_numbers(0.1, 0.2))
    with pytest.raises(RunError, match="is a retraining of t0000 itself"):
        choose_trial(record, searched_run, "t0000-r1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{tmp}/none"], "there is no such run"),
        (["{tmp}/run", "--trial", "t0009"], "run 'run' has no such trial"),
        (["{tmp}/run", "--trial", "t0001"], "--trial t0001: it has no score (failed)"),
        (["{tmp}/empty"], "run 'empty' has no finished trial"),
        (["{tmp}/run", "--set", "runtime.seed=3"], "each retraining has its own new seed"),
        (
            ["{tmp}/run", "--set", "detect.task1.nms=0.3"],
            "thresholds are chosen on the validation images after the training",
        ),
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
